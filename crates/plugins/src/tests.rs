use super::ALL;

#[test]
fn the_list_is_sorted_and_names_are_unique() {
    for pair in ALL.windows(2) {
        assert!(pair[0].facts.priority >= pair[1].facts.priority, "{}", pair[1].facts.name);
        assert_ne!(pair[0].facts.name, pair[1].facts.name);
    }
}
