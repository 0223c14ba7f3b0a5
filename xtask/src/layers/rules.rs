//! What must hold of the arrows: none goes up, none goes to another wing, so none goes around. And of errnos: they are
//! named where they are told apart.

use std::collections::BTreeMap;

use super::circles::{On, around};
use super::house::Floor;
use super::source::{Arrow, Source};

const UPWARDS: &str =
    "an arrow upwards; move what both use into a room below, or have it handed in (a trait, a closure)";
const ERRNO: &str = "an errno by number; decide by its class (src/types/errno.rs), or by ErrorKind";
const BESIDE: &str = "these know nothing of each other; move what both use into a room below both";

/// Where a room is: floor, wing, and how far up in that, from 0.
type Place = (usize, usize, usize);

fn places(house: &[Floor]) -> BTreeMap<&'static str, Place> {
    let mut places = BTreeMap::new();
    for (floor, wings) in house.iter().enumerate() {
        for (wing, rooms) in wings.iter().enumerate() {
            for (height, room) in rooms.iter().enumerate() {
                places.insert(room.name, (floor, wing, height));
            }
        }
    }
    places
}

/// What is wrong, a line each, with what to do; `folder` is the library's, for the names of files.
pub(super) fn wrong(house: &[Floor], source: &Source, folder: &str) -> Vec<String> {
    let places = places(house);
    let mut wrong = Vec::new();
    for room in &source.rooms {
        if !places.contains_key(room.as_str()) {
            wrong.push(format!(
                "{folder}/{room}: no room that the table knows: give it its place in xtask/src/layers/house.rs, or make \
                 it a part of one"
            ));
        }
    }
    for &room in places.keys() {
        if !source.rooms.contains(room) {
            wrong.push(format!(
                "{folder}/{room}: the table in xtask/src/layers/house.rs has a room that is not there: take it out"
            ));
        }
    }
    for arrow in &source.arrows {
        // Those that the table does not know are told of above; what is no room at all, here.
        let Some(from) = places.get(arrow.from.as_str()) else {
            continue;
        };
        let trouble = match places.get(arrow.to.as_str()) {
            None if source.rooms.contains(&arrow.to) => continue,
            None => "that is of no room: name what is used".to_owned(),
            Some(to) => match trouble(*from, *to) {
                None => continue,
                Some(trouble) => format!("{trouble}{}", circle(arrow, &source.arrows)),
            },
        };
        let Arrow {
            from, file, line, path, ..
        } = arrow;
        wrong.push(format!(
            "{folder}/{}:{line}: {from} uses {path}: {trouble}",
            file.display()
        ));
    }
    for (file, bare) in &source.errnos {
        let (file, name) = (file.display(), &bare.name);
        wrong.push(format!("{folder}/{file}:{}: {name}: {ERRNO}", bare.line));
    }
    wrong
}

fn trouble(from: Place, to: Place) -> Option<&'static str> {
    let ((floor, wing, height), (to_floor, to_wing, to_height)) = (from, to);
    if to_floor < floor {
        return None;
    }
    if to_floor == floor && to_wing != wing {
        return Some(BESIDE);
    }
    let is_below = to_floor == floor && to_height < height;
    (!is_below).then_some(UPWARDS)
}

/// How the arrow's end leads back to its beginning, the shortest way; empty where it does not.
fn circle(arrow: &Arrow, arrows: &[Arrow]) -> String {
    let mut on = On::new();
    for arrow in arrows {
        on.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    around(&on, &arrow.from, &arrow.to)
        .map(|way| format!(" (a circle: {})", way.join(" > ")))
        .unwrap_or_default()
}
