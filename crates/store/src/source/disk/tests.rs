use model::{Key, Kind, Resource};

use super::*;

const MARKS: Marks = Marks { sequence: Some(7), accepted_at: Some(DateTime::UNIX_EPOCH) };

fn update(revision: u64, resources: usize) -> Update {
    let mut snapshot = Snapshot::new("store", revision);
    for id in 0..resources {
        let value = format!("{{\"id\":\"{id}\",\"uri\":\"/{revision}\"}}");
        snapshot.put(Resource {
            key: Key::new(Kind::Routes, id.to_string()),
            value: value.into(),
            created: 0,
            modified: 0,
        });
    }
    Update {
        digest: Digest::of(&snapshot).to_string(),
        snapshot,
        instance: Some(Arc::new(Instance { config_version: revision, ..Instance::default() })),
        origin: Origin::ControlPlane,
        sequence: None,
        rejected: vec![],
        verified_at: Some(DateTime::UNIX_EPOCH),
        by_hand: false,
    }
}

fn kept(update: Update) -> Kept {
    Kept { update: Arc::new(update), marks: MARKS }
}

fn folder() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), "default");
    (dir, folder)
}

/// The names of what is there.
fn files(folder: &Folder) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&folder.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn reads_back_what_was_kept() {
    let (_dir, folder) = folder();
    assert!(folder.read().unwrap().is_none());
    folder.write(&kept(update(3, 20))).unwrap();
    let read = folder.read().unwrap().unwrap();
    assert_eq!((read.origin, read.snapshot.revision, read.snapshot.len()), (Origin::Disk, 3, 20));
    assert_eq!(&*read.snapshot.store_id, "store");
    assert_eq!(read.digest, update(3, 20).digest);
    assert_eq!(read.instance.unwrap().config_version, 3);
    assert_eq!(read.verified_at, Some(DateTime::UNIX_EPOCH));
    assert_eq!(folder.marks(), MARKS);
}

#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, folder) = folder();
    folder.write(&kept(update(3, 2))).unwrap();
    for name in files(&folder) {
        let mode = fs::metadata(folder.dir.join(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&folder.dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn two_generations_are_kept_and_no_more() {
    let (_dir, folder) = folder();
    for revision in 1..6 {
        folder.write(&kept(update(revision, 3))).unwrap();
    }
    assert_eq!(files(&folder).len(), 4, "{:?}", files(&folder));
    // Confirming the same resources is no new generation.
    folder.write(&kept(update(5, 3))).unwrap();
    fs::remove_file(folder.dir.join(CURRENT)).unwrap();
    assert_eq!(folder.read().unwrap().unwrap().snapshot.revision, 4);
}

#[test]
fn another_groups_snapshot_is_none_of_ours() {
    let (dir, folder) = folder();
    folder.write(&kept(update(1, 3))).unwrap();
    let other = Folder::new(dir.path(), "other");
    assert!(other.read().unwrap().is_none());
    assert_eq!(other.marks(), Marks::default());
}

/// Whatever one file looks like after a crash, the other generation can be read.
#[test]
fn one_torn_file_never_costs_both_generations() {
    let (_dir, folder) = folder();
    folder.write(&kept(update(1, 50))).unwrap();
    folder.write(&kept(update(2, 50))).unwrap();
    for name in files(&folder) {
        let path = folder.dir.join(&name);
        let whole = fs::read(&path).unwrap();
        let mut cuts: Vec<Vec<u8>> =
            [0, 1, whole.len() / 2, whole.len() - 1].map(|length| whole[..length].to_vec()).into();
        for at in [0, whole.len() / 3, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            cuts.push(flipped);
        }
        for cut in cuts {
            fs::write(&path, &cut).unwrap();
            let read = folder.read().unwrap().unwrap();
            assert!([1, 2].contains(&read.snapshot.revision));
            assert_eq!(read.digest, update(read.snapshot.revision, 50).digest, "{name}");
        }
        fs::remove_file(&path).unwrap();
        assert!(folder.read().unwrap().is_some());
        fs::write(&path, &whole).unwrap();
    }
}

/// Every state the folder is in while a third generation is written.
#[test]
fn a_crash_at_any_step_leaves_a_whole_generation() {
    let (_dir, folder) = folder();
    folder.write(&kept(update(1, 5))).unwrap();
    folder.write(&kept(update(2, 5))).unwrap();
    let third = update(3, 5);
    let unfinished = folder.dir.join(format!("{CURRENT}.1.new"));
    fs::write(&unfinished, b"{\"sha256\":").unwrap();
    assert_eq!(folder.read().unwrap().unwrap().snapshot.revision, 2);
    folder.write_body(&third.snapshot).unwrap();
    assert_eq!(folder.read().unwrap().unwrap().snapshot.revision, 2);
    // Between the two renames there is no current header.
    fs::rename(folder.dir.join(CURRENT), folder.dir.join(PREVIOUS)).unwrap();
    assert_eq!(folder.read().unwrap().unwrap().snapshot.revision, 2);
    folder.write(&kept(third)).unwrap();
    assert_eq!(folder.read().unwrap().unwrap().snapshot.revision, 3);
    assert!(!unfinished.exists());
}

#[test]
fn when_both_are_gone_it_says_why() {
    let (_dir, folder) = folder();
    folder.write(&kept(update(1, 5))).unwrap();
    fs::write(folder.dir.join(CURRENT), b"").unwrap();
    assert!(folder.read().unwrap_err().contains("EOF"), "{:?}", folder.read());
}
