//! The C ABI, as a program compiled against Lustre 2.17.0's headers printed it.

use lhsmtool_s3::lustre::abi;

#[test]
fn every_struct_that_we_share_with_c_has_the_layout_of_the_real_headers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/abi.json");
    let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let ours = abi::structs();
    assert_eq!(ours.len(), 9);
    for layout in ours {
        let want = &facts["structs"][layout.name];
        assert_eq!(want["size"], layout.size, "sizeof {}", layout.name);
        assert_eq!(want["align"], layout.align, "alignof {}", layout.name);
        let fields = want["fields"].as_object().unwrap();
        assert_eq!(fields.len(), layout.fields.len(), "fields of {}", layout.name);
        for (field, offset) in layout.fields {
            assert_eq!(fields[*field]["offset"], *offset, "offsetof {}.{field}", layout.name);
        }
    }
    for (name, value) in abi::constants() {
        assert_eq!(facts["constants"][*name], *value, "{name}");
    }
}
