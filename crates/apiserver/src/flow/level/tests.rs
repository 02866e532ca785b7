//! Seats and turns of one level.

use super::*;

const SHAPE: Shape = Shape { queues: 8, hand: 2, length: 3 };

fn level(kind: Kind, limit: u32) -> (Arc<Level>, Arc<Counts>) {
    (Arc::new(Level::new(kind, limit)), Arc::default())
}

fn who(flow: u64) -> (u64, About) {
    let (nobody, nothing) = (registry::UserInfo::default(), crate::authz::Attributes::default());
    (flow, About::new("schema", "flow", &nobody, &nothing))
}

#[tokio::test(start_paused = true)]
async fn some_seats_are_kept_for_a_while() {
    let (level, counts) = level(Kind::Reject, 4);
    let after = Duration::from_millis(5);
    let place = try_enter(&level, &counts, Seats { during: 3, kept: 2, after }).expect("seats");
    assert_eq!(level.seats().1, 3);
    drop(place);
    assert_eq!((level.seats().1, counts.executing()), (2, 0));
    tokio::time::sleep(after * 2).await;
    assert_eq!(level.seats().1, 0);
}

#[test]
fn seats_are_given_back_and_never_oversold() {
    let (level, counts) = level(Kind::Reject, 2);
    let wide = try_enter(&level, &counts, Seats::during(5)).expect("alone, it may");
    assert!(try_enter(&level, &counts, Seats::during(1)).is_none());
    drop(wide);
    let one = try_enter(&level, &counts, Seats::during(1)).expect("a seat");
    let two = try_enter(&level, &counts, Seats::during(1)).expect("a seat");
    assert!(try_enter(&level, &counts, Seats::during(1)).is_none());
    drop((one, two));
    assert_eq!(level.seats(), (2, 0));
    assert_eq!(level.demand(Duration::from_secs(10)).peak, 5);
    let (exempt, counts) = self::level(Kind::Exempt, 0);
    let places: Vec<Place> =
        (0..50).filter_map(|_| try_enter(&exempt, &counts, Seats::during(1))).collect();
    assert_eq!(places.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_seat_that_is_left() {
    let (level, counts) = level(Kind::Queue(SHAPE), 1);
    let held = try_enter(&level, &counts, Seats::during(1)).expect("a seat");
    let limit = Duration::from_secs(15);
    let mut waiting = Box::pin(wait(&level, &counts, who(7), Seats::during(1), limit));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(try_enter(&level, &counts, Seats::during(1)).is_none());
    drop(held);
    assert!(try_enter(&level, &counts, Seats::during(1)).is_none(), "it is another's turn");
    let place = waiting.await.expect("its turn");
    assert_eq!(level.seats(), (1, 1));
    drop(place);
    assert_eq!(level.seats(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn giving_up_leaves_nothing_behind() {
    let (level, counts) = level(Kind::Queue(SHAPE), 1);
    let held = try_enter(&level, &counts, Seats::during(1)).expect("a seat");
    let limit = Duration::from_secs(15);
    let late = wait(&level, &counts, who(7), Seats::during(1), limit).await;
    assert!(matches!(late, Err(Reason::TimeOut)));
    let mut gone = Box::pin(wait(&level, &counts, who(7), Seats::during(1), limit));
    let mut served = Box::pin(wait(&level, &counts, who(9), Seats::during(1), limit));
    assert!(futures::poll!(&mut gone).is_pending() && futures::poll!(&mut served).is_pending());
    drop(gone);
    drop(held);
    // Served, and gone before it noticed.
    drop(served);
    assert_eq!(level.seats(), (1, 0));
    try_enter(&level, &counts, Seats::during(1)).expect("nobody waits");
}

#[tokio::test(start_paused = true)]
async fn queues_have_an_end() {
    let (level, counts) = level(Kind::Queue(Shape { queues: 1, hand: 1, length: 2 }), 1);
    let _held = try_enter(&level, &counts, Seats::during(1)).expect("a seat");
    let limit = Duration::from_secs(15);
    let mut waiting: Vec<_> =
        (0..2).map(|_| Box::pin(wait(&level, &counts, who(1), Seats::during(1), limit))).collect();
    for one in &mut waiting {
        assert!(futures::poll!(one).is_pending());
    }
    let refused = wait(&level, &counts, who(1), Seats::during(1), limit).await;
    assert!(matches!(refused, Err(Reason::QueueFull)));
    level.set_limit(3);
    for one in waiting {
        one.await.expect("more seats");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_lose_no_seat() {
    let shape = Shape { queues: 16, hand: 4, length: 1000 };
    let (level, counts) = level(Kind::Queue(shape), 3);
    let tasks = (0..200_u64).map(|flow| {
        let (level, counts) = (level.clone(), counts.clone());
        tokio::spawn(async move {
            for round in 0..20 {
                let place = match try_enter(&level, &counts, Seats::during(1 + round % 3)) {
                    Some(place) => place,
                    None => {
                        wait(&level, &counts, who(flow), Seats::during(1), Duration::from_secs(60))
                            .await?
                    }
                };
                tokio::task::yield_now().await;
                drop(place);
            }
            Ok::<(), Reason>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic").expect("its turn");
    }
    assert_eq!(level.seats(), (3, 0));
    assert_eq!(level.waiting.load(SeqCst), 0);
}
