//! What the servers know this node by: its NIDs, as LNet tells them without a tool or a right of its own.

/// The list of the node's network interfaces; where it is depends on the release.
const LISTS: [&str; 2] = ["/sys/kernel/debug/lnet/nis", "/proc/sys/lnet/nis"];
/// The node for itself.
const LOOPBACK: &str = "@lo";

/// The NIDs of this node, such as `10.0.0.7@tcp`; none where LNet is not there, or its list can't be read (a container without
/// `/sys/kernel/debug`).
#[must_use]
pub fn own_nids() -> Vec<String> {
    let texts = LISTS.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    texts
        .map(|text| parse(&text))
        .find(|nids| !nids.is_empty())
        .unwrap_or_default()
}

/// A line for each interface and partition of the processors, the NID first.
fn parse(text: &str) -> Vec<String> {
    let mut nids: Vec<String> = Vec::new();
    for nid in text.lines().filter_map(|line| line.split_whitespace().next()) {
        let is_new = !nids.iter().any(|known| known == nid);
        if nid.contains('@') && !nid.ends_with(LOOPBACK) && is_new {
            nids.push(nid.to_owned());
        }
    }
    nids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_nids_are_those_of_its_interfaces_each_once() {
        let text = "\
nid                      status alive refs peer  rtr   max    tx   min
0@lo                         up     0    2    0    0     0     0     0
0@lo                         up     0    0    0    0     0     0     0
192.168.77.2@tcp             up    -1    1    8    0   256   256   248
192.168.77.2@tcp             up    -1    0    8    0   256   256   256
10.1.0.2@o2ib3             down    -1    1    8    0   256   256   248
";
        assert_eq!(parse(text), ["192.168.77.2@tcp", "10.1.0.2@o2ib3"]);
        assert!(parse("").is_empty());
    }
}
