//! Compiles `proto/etcd.proto` without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/etcd.proto");
    let descriptors = protox::compile(["proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Keys and values are slices of the message they came in: a snapshot copies each value once, not twice.
        .bytes(".")
        .compile_fds(descriptors.clone())?;
    // The same messages as etcd's JSON gateway writes them.
    let mut encoded = Vec::new();
    prost::Message::encode(&descriptors, &mut encoded)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .ignore_unknown_fields()
        .build(&[".etcdserverpb"])?;
    Ok(())
}
