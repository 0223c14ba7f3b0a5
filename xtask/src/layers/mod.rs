//! `cargo xtask layers [--json | --circles]`: the rooms of `src/` from the ground to the roof, what each stands on, and
//! whether an arrow goes up or around. With `--circles` also which files of one room stand on each other. It reads the
//! source and compiles nothing.

mod circles;
mod errnos;
mod house;
mod lexer;
mod paths;
mod rules;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use house::{Floor, HOUSE};
use source::Source;

const FOLDER: &str = "src";

/// Prints the house; whoever broke a rule is told by file and line.
pub(super) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let argument = match arguments {
        [] => "",
        [argument] if matches!(argument.as_str(), "--json" | "--circles") => argument.as_str(),
        _ => {
            eprintln!("usage: cargo xtask layers [--json | --circles]");
            return ExitCode::from(2);
        }
    };
    let source = match source::source(&root.join(FOLDER)) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let wrong = rules::wrong(HOUSE, &source, FOLDER);
    match argument {
        "--json" => println!("{}", json(HOUSE, &source, &wrong)),
        _ => print!("{}", text(HOUSE, &source)),
    }
    if argument == "--circles" {
        println!("files of one room that stand on each other (a remark, no failure):");
        for line in circles::between_files(&source.inside) {
            println!("{line}");
        }
    }
    for line in &wrong {
        eprintln!("{line}");
    }
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a room stands on, and by how many paths.
fn below<'a>(source: &'a Source, room: &str) -> BTreeMap<&'a str, usize> {
    let mut below = BTreeMap::new();
    for arrow in source.arrows.iter().filter(|arrow| arrow.from == room) {
        *below.entry(arrow.to.as_str()).or_default() += 1;
    }
    below
}

fn text(house: &[Floor], source: &Source) -> String {
    let mut text = String::new();
    for floor in house {
        for (wing, rooms) in floor.iter().enumerate() {
            if wing > 0 {
                text += "beside these, unknown to them:\n";
            }
            for room in *rooms {
                text += &format!("{:<10} {}\n", room.name, room.what);
                let below: Vec<_> = below(source, room.name).into_keys().collect();
                if !below.is_empty() {
                    text += &format!("{:<10} > {}\n", "", below.join(" "));
                }
            }
        }
        text += "\n";
    }
    text
}

fn json(house: &[Floor], source: &Source, wrong: &[String]) -> String {
    let rooms = house.iter().copied().flatten().copied().flatten();
    let rooms: Vec<_> = rooms
        .map(|room| {
            let below: Vec<_> = below(source, room.name)
                .into_iter()
                .map(|(to, paths)| format!("{}:{paths}", quoted(to)))
                .collect();
            format!(
                "{{\"room\":{},\"stands_on\":{{{}}}}}",
                quoted(room.name),
                below.join(",")
            )
        })
        .collect();
    let wrong: Vec<_> = wrong.iter().map(|line| quoted(line)).collect();
    format!("{{\"rooms\":[{}],\"wrong\":[{}]}}", rooms.join(","), wrong.join(","))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::house::Room;
    use super::*;

    const SMALL: &[Floor] = &[
        &[&[
            Room {
                name: "words",
                what: "said by all",
            },
            Room {
                name: "deeds",
                what: "done by all",
            },
        ]],
        &[
            &[Room {
                name: "east",
                what: "one border",
            }],
            &[Room {
                name: "west",
                what: "the other",
            }],
        ],
    ];

    /// A library in a folder of its own, gone with its end.
    struct Library(PathBuf);

    impl Library {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = std::env::temp_dir().join(format!("lhsm-layers-{}-{name}", std::process::id()));
            let library = Self(folder);
            let rooms = [
                ("words.rs", ""),
                ("deeds.rs", ""),
                ("east/mod.rs", ""),
                ("west/mod.rs", ""),
            ];
            for (file, text) in rooms.iter().chain(files) {
                let path = library.0.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            library
        }

        fn source(&self) -> Source {
            source::source(&self.0).unwrap()
        }

        fn wrong(&self) -> Vec<String> {
            rules::wrong(SMALL, &self.source(), "src")
        }
    }

    impl Drop for Library {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn arrows_downwards_are_fine_and_are_shown() {
        let library = Library::new(
            "fine",
            &[
                ("lib.rs", "pub mod words; pub mod deeds; pub mod east; pub mod west;"),
                ("main.rs", "use crate::nowhere;"),
                ("deeds.rs", "use crate::words::Word;\n"),
                (
                    "east/mod.rs",
                    "mod gate;\n#[cfg(test)]\nmod tests;\n/// [`crate::west::Gate`]\nuse crate::words;",
                ),
                (
                    "east/gate.rs",
                    "use super::super::deeds::Deed; fn f() { crate::deeds::g() }",
                ),
                ("east/tests.rs", "use crate::west::Gate;"),
                ("east/tests/more.rs", "use crate::west::Gate;"),
            ],
        );
        assert_eq!(library.wrong(), Vec::<String>::new());
        assert_eq!(
            text(SMALL, &library.source()),
            "words      said by all\ndeeds      done by all\n           > words\n\neast       one border\n\
             \x20          > deeds words\nbeside these, unknown to them:\nwest       the other\n\n"
        );
        assert_eq!(
            json(SMALL, &library.source(), &["a \"b\"\n".to_owned()]),
            "{\"rooms\":[{\"room\":\"words\",\"stands_on\":{}},{\"room\":\"deeds\",\"stands_on\":{\"words\":1}},\
             {\"room\":\"east\",\"stands_on\":{\"deeds\":2,\"words\":1}},{\"room\":\"west\",\"stands_on\":{}}],\
             \"wrong\":[\"a \\\"b\\\"\\u000a\"]}"
        );
    }

    #[test]
    fn an_arrow_upwards_is_told_with_its_line_and_the_circle_that_it_closes() {
        let library = Library::new(
            "upwards",
            &[
                ("words.rs", "\nuse crate::deeds::Deed;"),
                ("deeds.rs", "use crate::east::{\n    Gate,\n};"),
                ("east/gate.rs", "use crate::words::Word;"),
            ],
        );
        let wrong = library.wrong();
        let [deeds, words] = wrong.as_slice() else {
            panic!("{wrong:?}")
        };
        assert!(
            deeds.starts_with("src/deeds.rs:2: deeds uses east::Gate: an arrow upwards"),
            "{deeds}"
        );
        assert!(deeds.ends_with("(a circle: deeds > east > words > deeds)"), "{deeds}");
        assert!(
            words.starts_with("src/words.rs:2: words uses deeds::Deed: an arrow upwards"),
            "{words}"
        );
        assert!(words.ends_with("(a circle: words > deeds > east > words)"), "{words}");
    }

    #[test]
    fn files_of_a_room_that_stand_on_each_other_are_told_by_whatever_name() {
        let library = Library::new(
            "circles",
            &[
                (
                    "east/mod.rs",
                    "mod gate; mod wall; mod yard; pub use gate::Gate; pub use wall::Wall as Stones;",
                ),
                ("east/gate.rs", "use super::Stones; use super::yard;"),
                ("east/wall.rs", "use crate::east::{Gate}; fn f() { super::yard::g() }"),
                (
                    "east/yard.rs",
                    "use crate::words::Word; #[cfg(test)] mod tests { use super::super::Gate; }",
                ),
            ],
        );
        assert_eq!(
            circles::between_files(&library.source().inside),
            ["east: gate > wall > gate"]
        );
        assert_eq!(library.wrong(), Vec::<String>::new());
    }

    #[test]
    fn wings_of_one_floor_know_nothing_of_each_other() {
        let library = Library::new("beside", &[("west/mod.rs", "use crate::east::Gate;")]);
        let wrong = library.wrong();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("src/west/mod.rs:1: west uses east::Gate: these know nothing of each other"));
    }

    #[test]
    fn what_the_table_and_the_folder_do_not_share_is_told() {
        let library = Library::new(
            "unknown",
            &[("cellar.rs", "use crate::words;"), ("deeds.rs", "use crate::*;")],
        );
        fs::remove_file(library.0.join("words.rs")).unwrap();
        let wrong = library.wrong();
        let begin = [
            "src/cellar: no room",
            "src/words: the table",
            "src/deeds.rs:1: deeds uses *: that is of no room",
        ];
        assert_eq!(wrong.len(), begin.len(), "{wrong:?}");
        for (line, begin) in wrong.iter().zip(begin) {
            assert!(line.starts_with(begin), "{line}");
        }
    }

    #[test]
    fn an_errno_outside_its_tables_is_told_with_its_line() {
        let library = Library::new(
            "errnos",
            &[
                (
                    "words.rs",
                    "\nfn f(e: i32) -> bool { e == libc::EIO }\n#[cfg(test)]\nfn g() { libc::EPERM }",
                ),
                ("lib.rs", "#[cfg(test)]\nmod plays;\nfn f() { Errno::EPERM }"),
                ("plays/mod.rs", "fn f() { Errno::EPERM }"),
                ("types/errno.rs", "fn f() { Errno::EPERM }"),
            ],
        );
        let wrong: Vec<_> = library
            .wrong()
            .into_iter()
            .filter(|line| line.contains("errno"))
            .collect();
        let [lib, words] = wrong.as_slice() else {
            panic!("{wrong:?}")
        };
        assert!(lib.starts_with("src/lib.rs:3: EPERM: an errno by number"), "{lib}");
        assert!(words.starts_with("src/words.rs:2: EIO: an errno by number"), "{words}");
    }

    #[test]
    fn this_house_keeps_its_own_rules() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FOLDER);
        let source = source::source(&folder).unwrap();
        assert_eq!(rules::wrong(HOUSE, &source, FOLDER), Vec::<String>::new());
        assert!(source.arrows.len() > 100, "{}", source.arrows.len());
    }
}
