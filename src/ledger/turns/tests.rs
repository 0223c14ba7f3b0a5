use super::*;

fn other(serial: i64, behind: bool) -> Other {
    Other {
        mover: format!("mover{serial}"),
        serial,
        behind,
        settles: false,
        is_dead: false,
    }
}

fn dead(serial: i64, behind: bool) -> Other {
    Other {
        is_dead: true,
        ..other(serial, behind)
    }
}

#[test]
fn alone_at_its_file_an_action_goes_and_one_that_waited_says_so_before() {
    assert_eq!(turn(Stage::Fresh, 5, &[]), Turn::Goes);
    assert_eq!(turn(Stage::Behind, 5, &[]), Turn::Claims);
    assert_eq!(turn(Stage::Claims, 5, &[]), Turn::Goes);
}

#[test]
fn whoever_meets_one_that_may_be_under_way_waits_whatever_the_serials_are() {
    for stage in [Stage::Fresh, Stage::Behind, Stage::Claims] {
        for others in [[other(1, false), other(2, true)], [other(9, false), other(2, true)]] {
            assert_eq!(turn(stage, 5, &others), Turn::Waits(&others[0]), "{stage:?}");
        }
        let killed = [dead(1, false)];
        assert_eq!(turn(stage, 5, &killed), Turn::Waits(&killed[0]));
    }
}

#[test]
fn of_those_that_wait_the_one_whose_row_came_first_goes() {
    let others = [other(7, true), other(9, true)];
    assert_eq!(turn(Stage::Behind, 5, &others), Turn::Claims);
    assert_eq!(turn(Stage::Behind, 8, &others), Turn::Waits(&others[0]));
    assert_eq!(turn(Stage::Behind, i64::MIN, &others), Turn::Claims);
    assert_eq!(turn(Stage::Claims, 5, &others), Turn::Goes);
    // One that is new waits behind those that wait.
    assert_eq!(turn(Stage::Fresh, 5, &others), Turn::Waits(&others[0]));
    // What a dead one has not begun holds nobody up, nor what is left of what it has answered.
    let answered = |other: Other| Other { settles: true, ..other };
    assert_eq!(turn(Stage::Behind, 8, &[dead(7, true)]), Turn::Claims);
    assert_eq!(turn(Stage::Behind, 8, &[answered(dead(7, false))]), Turn::Claims);
    let cleans_up = [answered(other(7, false))];
    assert_eq!(turn(Stage::Behind, 8, &cleans_up), Turn::Waits(&cleans_up[0]));
}

/// Two movers, each with an action of one file, in all orders of their steps: rows and their words are seen when they are
/// committed, and a look sees what was committed before it.
#[test]
fn whatever_the_order_of_rows_and_looks_one_goes_first_and_the_other_waits_for_its_end() {
    #[derive(Clone, Copy)]
    struct Mover {
        stage: Stage,
        /// What its row says to others; `None`: there is none yet, or no more.
        says: Option<bool>,
        /// What it is about to say.
        next: Option<bool>,
        runs: bool,
        ran: bool,
    }
    const IDLE: Mover = Mover {
        stage: Stage::Fresh,
        says: None,
        next: Some(false),
        runs: false,
        ran: false,
    };
    fn act(movers: &mut [Mover; 2], n: usize) {
        let (serial, theirs) = ([1, 2][n], movers[1 - n]);
        let mover = &mut movers[n];
        if mover.ran {
            return;
        }
        if let Some(says) = mover.next.take() {
            mover.says = Some(says);
        } else if mover.runs {
            (mover.runs, mover.ran, mover.says) = (false, true, None);
        } else {
            let others: Vec<_> = theirs.says.map(|behind| other([2, 1][n], behind)).into_iter().collect();
            match turn(mover.stage, serial, &others) {
                Turn::Goes => mover.runs = true,
                Turn::Claims => (mover.stage, mover.next) = (Stage::Claims, Some(false)),
                Turn::Waits(_) if mover.stage == Stage::Behind => {}
                Turn::Waits(_) => (mover.stage, mover.next) = (Stage::Behind, Some(true)),
            }
        }
    }
    for order in 0u32..1 << 16 {
        let mut movers = [IDLE; 2];
        for step in 0..16 {
            act(&mut movers, usize::from(order & (1 << step) != 0));
            assert!(!(movers[0].runs && movers[1].runs), "{order:b}");
        }
        // In whatever order it began, it comes to an end.
        for step in 0..40 {
            act(&mut movers, step % 2);
            assert!(!(movers[0].runs && movers[1].runs), "{order:b}");
        }
        assert!(movers.iter().all(|mover| mover.ran), "{order:b}");
    }
}

#[test]
fn only_archives_and_removes_wait_for_the_answer_and_only_while_somebody_gives_one() {
    let turns = Turns::default();
    let (archive, restore) = (Item::of_test(1, Verb::Archive), Item::of_test(2, Verb::Restore));
    turns.add(&archive);
    assert_eq!(turns.asks_until(&archive), None);
    turns.open();
    turns.add(&archive);
    turns.add(&restore);
    assert!(turns.asks_until(&archive).is_some() && turns.asks_until(&restore).is_none());
    let fresh = turns.fresh(10);
    assert_eq!(fresh.len(), 2);
    // It came again while it was looked at.
    turns.add(&archive);
    let of_archive = fresh.iter().find(|(key, _)| *key == archive.key()).unwrap();
    assert!(!turns.looked_at(of_archive.0, of_archive.1));
    assert!(turns.asks_until(&archive).is_some());
    let again = turns.fresh(10);
    assert!(again.iter().all(|(key, fresh)| turns.looked_at(*key, *fresh)));
    assert_eq!(turns.asks_until(&archive), None);
}

#[test]
fn what_waits_goes_when_nobody_looks_any_more_and_is_forgotten_when_it_ends() {
    let turns = Turns::default();
    turns.open();
    let (first, second, third) = (
        Item::of_test(1, Verb::Archive),
        Item::of_test(2, Verb::Remove),
        Item::of_test(3, Verb::Restore),
    );
    turns.waits(first.key(), false);
    turns.waits(second.key(), false);
    turns.waits(third.key(), true);
    for key in [first.key(), second.key()] {
        turns.waits_for(key, &other(1, false));
    }
    turns.waits_for(third.key(), &other(2, false));
    let by_mover: Vec<_> = turns.by_mover().into_iter().collect();
    assert_eq!(by_mover, [("mover1".to_owned(), 2), ("mover2".to_owned(), 1)]);
    turns.stands(first.key(), Stage::Behind, 8);
    turns.stands(second.key(), Stage::Claims, 5);
    turns.stands(third.key(), Stage::Behind, 2);
    assert_eq!(turns.first_serial(first.fid, false), 5);
    let page = turns.waiting(None, 2);
    assert_eq!(page.len(), 2);
    assert_eq!(turns.waiting(Some(page[1].0), 2)[0].0, third.key());
    turns.ended(second.key());
    assert_eq!(turns.first_serial(first.fid, false), 8);
    assert_eq!(turns.take_over(), [second.key()]);
    turns.add(&Item::of_test(4, Verb::Archive));
    let mut closed = turns.close();
    closed.sort_unstable_by_key(|key| key.cookie);
    assert_eq!(
        closed,
        [first.key(), third.key(), Item::of_test(4, Verb::Archive).key()]
    );
    assert!(turns.is_empty());
}

#[test]
fn nobody_waits_for_ever() {
    let turns = Turns::default();
    let key = Item::of_test(1, Verb::Archive).key();
    turns.waits(key, false);
    let overdue = |limit| turns.waiting(None, 1)[0].1.is_overdue(limit);
    assert!(!overdue(Duration::ZERO), "nobody is dead");
    turns.waits_for(key, &dead(1, false));
    std::thread::yield_now();
    while !overdue(Duration::ZERO) {
        std::thread::yield_now();
    }
    assert!(!overdue(Duration::from_secs(300)));
    turns.waits_for(key, &other(1, false));
    assert!(!overdue(Duration::ZERO));
}
