//! The tests that PROMISES.md names exist.

use std::path::Path;

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("PROMISES.md")).unwrap();
    let (mut file, mut found) = ("", 0);
    for quoted in text.split('`').skip(1).step_by(2) {
        let name = match quoted.split_once("::") {
            Some((of, name)) => {
                file = of;
                name
            }
            // Another one of the same file, or not a test at all.
            None if quoted.matches('_').count() >= 3 && !quoted.contains('.') => quoted,
            None => continue,
        };
        let source = match name {
            "the_shield_leaves_no_holes_and_the_same_dumps_finish" => "../netsim/tests/models.rs",
            _ => &format!("tests/it/{file}.rs"),
        };
        let source = std::fs::read_to_string(root.join(source)).unwrap_or_default();
        assert!(source.contains(&format!("fn {name}(")), "{file}::{name} does not exist");
        found += 1;
    }
    assert!(found >= 25, "{found} names were understood");
}
