//! Circles: between rooms, which no house has, and between the files of one, which are worth a remark: who wants to read one
//! of them has to read them all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::Between;

/// What stands on what.
pub(super) type On<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// From `from` over `to` back to `from`, the shortest way; `None` where there is none.
pub(super) fn around<'a>(on: &On<'a>, from: &'a str, to: &'a str) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &'a str> = BTreeMap::new();
    let mut next = VecDeque::from([to]);
    while let Some(place) = next.pop_front() {
        if place == from {
            let mut way = vec![place];
            let mut at = place;
            while let Some(&before) = came_from.get(at) {
                way.push(before);
                at = before;
            }
            way.push(from);
            way.reverse();
            return Some(way);
        }
        for &below in on.get(place).into_iter().flatten() {
            if below != to && !came_from.contains_key(below) {
                came_from.insert(below, place);
                next.push_back(below);
            }
        }
    }
    None
}

/// The circles between files, a line each, room by room: of each arrow that is in one, the shortest.
pub(super) fn between_files(arrows: &[Between]) -> Vec<String> {
    let mut on = On::new();
    for Between { from, to } in arrows {
        on.entry(from).or_default().insert(to);
    }
    let mut found = BTreeSet::new();
    for Between { from, to } in arrows {
        if let Some(mut way) = around(&on, from, to) {
            // It begins where its first name is, so that it is one circle wherever it was found.
            way.pop();
            let first = way.iter().enumerate().min_by_key(|(_, file)| **file);
            let first = first.map_or(0, |(at, _)| at);
            way.rotate_left(first);
            found.insert(way);
        }
    }
    found.into_iter().map(|way| line(&way)).collect()
}

fn line(way: &[&str]) -> String {
    let first = way.first().copied().unwrap_or_default();
    let (room, _) = first.split_once("::").unwrap_or((first, ""));
    let short = |file: &str| match file.strip_prefix(room).and_then(|file| file.strip_prefix("::")) {
        Some(file) => file.to_owned(),
        None => "mod".to_owned(),
    };
    let names: Vec<_> = way.iter().chain(way.first()).map(|file| short(file)).collect();
    format!("{room}: {}", names.join(" > "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(arrows: &[(&str, &str)]) -> Vec<String> {
        let arrows = arrows.iter().map(|(from, to)| Between {
            from: (*from).to_owned(),
            to: (*to).to_owned(),
        });
        between_files(&arrows.collect::<Vec<_>>())
    }

    #[test]
    fn a_circle_is_told_once_from_its_first_file_on() {
        assert_eq!(
            circles(&[("r::c", "r::a"), ("r::a", "r::b"), ("r::b", "r::c"), ("r::c", "r::d")]),
            ["r: a > b > c > a"]
        );
    }

    #[test]
    fn each_arrow_of_a_knot_is_in_a_circle_that_is_told() {
        assert_eq!(
            circles(&[("r", "r::a"), ("r::a", "r"), ("r::a", "r::b"), ("r::b", "r::a")]),
            ["r: mod > a > mod", "r: a > b > a"]
        );
    }

    #[test]
    fn a_tree_has_none() {
        assert!(circles(&[("r::a", "r::b"), ("r::a", "r::c"), ("r::b", "r::c")]).is_empty());
    }
}
