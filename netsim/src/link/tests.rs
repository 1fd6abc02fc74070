use proptest::prelude::*;

use super::*;

/// Offers `count` frames of `len` bytes, one every `gap_us`, and takes
/// everything out again. The ordinal stands in the first 8 bytes.
fn run(link: &mut Link, count: u64, len: usize, gap_us: u64) -> Vec<Frame> {
    let mut arrived = Vec::new();
    let mut bytes = vec![0_u8; len.max(8)];
    for ordinal in 0..count {
        let now = Instant::from_micros(ordinal * gap_us);
        while let Some(frame) = link.deliver(now) {
            arrived.push(frame);
        }
        bytes[..8].copy_from_slice(&ordinal.to_be_bytes());
        link.send(now, &bytes);
    }
    while let Some(at) = link.next_delivery() {
        arrived.push(link.deliver(at).expect("the frame announced"));
    }
    arrived
}

fn ordinals(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.ordinal).collect()
}

fn assert_counters_add_up(link: &Link) {
    let Counters { offered, delivered, lost, duplicated, queue_dropped, .. } = link.counters();
    assert_eq!(
        offered + duplicated,
        delivered + lost + queue_dropped + link.in_flight() as u64,
        "{:?}",
        link.counters()
    );
}

#[test]
fn perfect_link_delivers_at_once_and_unchanged() {
    let mut link = Link::new(LinkConfig::default(), 0);
    link.send(Instant::from_micros(7), b"frame");
    let frame = link.deliver(Instant::from_micros(7)).unwrap();
    assert_eq!((frame.bytes.as_slice(), frame.at.as_micros()), (b"frame".as_slice(), 7));
    assert!(link.deliver(Instant::NEVER).is_none());
}

#[test]
fn rate_is_exact_over_many_frames() {
    // 10 Gbit/s: 1538 bytes take 1230.4 ns, which no whole number of
    // nanoseconds holds. A million frames take 1.2304 s to the nanosecond.
    for (rate_bps, total_us) in
        [(10_000_000_000, 1_230_400), (1_000_000_000, 12_304_000), (100_000_000, 123_040_000)]
    {
        let mut link = Link::new(LinkConfig::new(rate_bps, 0), 1);
        let frame = [0; 1514];
        let mut last = Instant::ZERO;
        for _ in 0..1_000_000 {
            link.send(Instant::ZERO, &frame);
            let arrived = link.deliver(Instant::NEVER).unwrap();
            last = arrived.at;
            link.recycle(arrived);
        }
        assert_eq!(last.as_micros(), total_us);
    }
}

#[test]
fn short_frames_are_padded_on_the_wire() {
    let mut link = Link::new(LinkConfig::new(1_000_000_000, 0), 1);
    // 84 bytes on the wire each: 672 ns; 1000 of them 672 us.
    let arrived = run(&mut link, 1000, 8, 0);
    assert_eq!(arrived.last().unwrap().at.as_micros(), 672);
    assert_eq!(arrived[0].bytes.len(), 8);
}

#[test]
fn an_idle_line_does_not_save_up_time() {
    let mut link = Link::new(LinkConfig::new(1_000_000_000, 100), 1);
    let arrived = run(&mut link, 3, 1514, 1_000_000);
    let times: Vec<u64> = arrived.iter().map(|frame| frame.at.as_micros()).collect();
    assert_eq!(times, [113, 1_000_113, 2_000_113]);
}

#[test]
fn loss_is_near_its_probability() {
    for (seed, loss) in [(1, 0.01), (2, 0.05), (3, 0.2), (4, 0.5)] {
        let mut link = Link::new(LinkConfig { loss, ..LinkConfig::default() }, seed);
        let count = 100_000;
        let arrived = run(&mut link, count, 60, 1).len() as f64;
        let lost = 1.0 - arrived / count as f64;
        // Five standard deviations.
        let tolerance = 5.0 * (loss * (1.0 - loss) / count as f64).sqrt();
        assert!((lost - loss).abs() < tolerance, "seed {seed}: lost {lost}, asked for {loss}");
    }
}

#[test]
fn burst_loss_has_the_share_and_the_length_asked_for() {
    let burst = Some(GilbertElliott::bursts(0.01, 10.0));
    let mut link = Link::new(LinkConfig { burst, ..LinkConfig::default() }, 5);
    let count = 1_000_000;
    let arrived = ordinals(&run(&mut link, count, 8, 1));
    let lost = count - arrived.len() as u64;
    let bursts = arrived.windows(2).filter(|pair| pair[1] != pair[0] + 1).count() as u64;
    assert!((8_000..12_000).contains(&lost), "{lost} lost");
    let mean = lost as f64 / bursts as f64;
    assert!((9.0..11.0).contains(&mean), "mean burst {mean}");
}

#[test]
fn the_list_drops_exactly_its_frames() {
    let drop_list = BTreeSet::from([0, 3, 4]);
    let mut link = Link::new(LinkConfig { drop_list, ..LinkConfig::default() }, 0);
    assert_eq!(ordinals(&run(&mut link, 7, 60, 1)), [1, 2, 5, 6]);
    assert_eq!(link.counters().lost, 3);
}

#[test]
fn full_queue_drops_the_tail() {
    let config = LinkConfig { queue_frames: Some(4), ..LinkConfig::new(1_000_000_000, 0) };
    let mut link = Link::new(config, 0);
    // At one instant: one on the line and four waiting.
    assert_eq!(ordinals(&run(&mut link, 10, 1514, 0)), [0, 1, 2, 3, 4]);
    assert_eq!(link.counters().queue_dropped, 5);
    // As fast as the line and slower: none.
    let config = link.config().clone();
    let mut link = Link::new(config, 0);
    assert_eq!(run(&mut link, 1000, 1514, 13).len(), 1000);
}

#[test]
fn a_held_back_frame_is_overtaken() {
    let config =
        LinkConfig { reorder: 0.1, reorder_delay_us: 50, ..LinkConfig::new(1_000_000_000, 10) };
    let mut link = Link::new(config, 3);
    let arrived = ordinals(&run(&mut link, 1000, 1514, 13));
    assert_eq!(arrived.len(), 1000);
    let overtaken = arrived.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
    assert!(overtaken > 50, "{overtaken}");
    assert!((50..200).contains(&link.counters().reordered));
}

#[test]
fn copies_are_equal_and_counted() {
    let mut link = Link::new(LinkConfig { duplicate: 0.25, ..LinkConfig::default() }, 3);
    let arrived = run(&mut link, 4000, 60, 1);
    let duplicated = link.counters().duplicated;
    assert_eq!(arrived.len() as u64, 4000 + duplicated);
    assert!((800..1200).contains(&duplicated), "{duplicated}");
    for pair in arrived.windows(2).filter(|pair| pair[0].ordinal == pair[1].ordinal) {
        assert_eq!(pair[0].bytes, pair[1].bytes);
    }
}

#[test]
fn corruption_flips_exactly_one_bit() {
    let mut link = Link::new(LinkConfig { corrupt: 1.0, ..LinkConfig::default() }, 3);
    let sent = [0x5a_u8; 100];
    let mut touched = BTreeSet::new();
    for _ in 0..2000 {
        link.send(Instant::ZERO, &sent);
        let got = link.deliver(Instant::ZERO).unwrap().bytes;
        let flipped: u32 = sent.iter().zip(&got).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1);
        touched.extend(sent.iter().zip(&got).position(|(a, b)| a != b));
    }
    assert_eq!(touched.len(), 100, "every byte is hit some time");
    assert_eq!(link.counters().corrupted, 2000);
}

#[test]
fn a_link_that_is_down_loses_what_it_is_offered() {
    let mut link = Link::new(LinkConfig::new(0, 10), 0);
    link.send(Instant::ZERO, b"before");
    link.set_up(false);
    link.send(Instant::ZERO, b"while");
    link.set_up(true);
    link.send(Instant::ZERO, b"after");
    let mut got = Vec::new();
    while let Some(frame) = link.deliver(Instant::from_micros(10)) {
        got.push(frame.bytes);
    }
    assert_eq!(got, [b"before".to_vec(), b"after".to_vec()]);
    assert_eq!(link.counters().lost, 1);
}

#[test]
fn stations_draw_apart() {
    let loss = LinkConfig { loss: 0.1, ..LinkConfig::default() };
    let more = LinkConfig { jitter_us: 100, corrupt: 0.5, ..loss.clone() };
    let plain = ordinals(&run(&mut Link::new(loss, 11), 5000, 60, 1));
    assert_eq!(plain, ordinals(&run(&mut Link::new(more, 11), 5000, 60, 1)));
}

#[test]
fn the_two_directions_differ() {
    let config = LinkConfig { loss: 0.5, ..LinkConfig::default() };
    let (mut there, mut back) = Link::pair(&config, 1);
    assert_ne!(ordinals(&run(&mut there, 200, 60, 1)), ordinals(&run(&mut back, 200, 60, 1)));
}

#[test]
fn a_far_future_does_not_overflow() {
    let mut link = Link::new(LinkConfig::new(1, u64::MAX), 0);
    link.send(Instant::NEVER, &[0; 1514]);
    link.send(Instant::NEVER, &[0; 1514]);
    assert!(link.next_delivery().is_some());
    assert!(link.deliver(Instant::NEVER).is_some());
}

fn any_config() -> impl Strategy<Value = LinkConfig> {
    let p = prop_oneof![Just(0.0), 0.0..0.5_f64];
    (
        prop_oneof![Just(0), 1_000_000_u64..20_000_000_000],
        0_u64..50_000,
        0_u64..5_000,
        (p.clone(), p.clone(), p.clone(), p),
        0_u64..10_000,
        proptest::option::of(0_usize..50),
        proptest::option::of((0.0..0.3_f64, 1.0..20.0_f64)),
    )
        .prop_map(
            |(rate_bps, delay_us, jitter_us, (loss, dup, reorder, corrupt), hold, q, ge)| {
                LinkConfig {
                    rate_bps,
                    delay_us,
                    jitter_us,
                    loss,
                    burst: ge.map(|(loss, len)| GilbertElliott::bursts(loss, len)),
                    duplicate: dup,
                    reorder,
                    reorder_delay_us: hold,
                    corrupt,
                    queue_frames: q,
                    drop_list: BTreeSet::new(),
                }
            },
        )
}

proptest! {
    #[test]
    fn same_seed_same_result(config in any_config(), seed: u64, gap_us in 0_u64..50) {
        let once = run(&mut Link::new(config.clone(), seed), 300, 200, gap_us);
        let again = run(&mut Link::new(config, seed), 300, 200, gap_us);
        prop_assert_eq!(once, again);
    }

    #[test]
    fn counters_add_up_and_time_does_not_go_back(config in any_config(), seed: u64, gap_us in 0_u64..50) {
        let mut link = Link::new(config.clone(), seed);
        let arrived = run(&mut link, 300, 200, gap_us);
        assert_counters_add_up(&link);
        prop_assert_eq!(arrived.len() as u64, link.counters().delivered);
        prop_assert!(arrived.windows(2).all(|pair| pair[0].at <= pair[1].at));
        for frame in &arrived {
            let earliest_us = frame.ordinal * gap_us + config.delay_us;
            prop_assert!(frame.at.as_micros() >= earliest_us);
        }
    }

    #[test]
    fn order_is_kept_without_reorder(config in any_config(), seed: u64, gap_us in 0_u64..50) {
        let config = LinkConfig { reorder: 0.0, ..config };
        let arrived = ordinals(&run(&mut Link::new(config, seed), 300, 200, gap_us));
        prop_assert!(arrived.is_sorted());
    }

    #[test]
    fn nothing_is_lost_without_loss(config in any_config(), seed: u64, gap_us in 0_u64..50) {
        let config = LinkConfig {
            loss: 0.0, burst: None, queue_frames: None, corrupt: 0.0, ..config
        };
        let arrived = run(&mut Link::new(config, seed), 300, 200, gap_us);
        let mut got: Vec<u64> =
            arrived.iter().map(|f| u64::from_be_bytes(f.bytes[..8].try_into().unwrap())).collect();
        got.sort_unstable();
        got.dedup();
        prop_assert_eq!(got, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn delivery_is_never_faster_than_the_line(rate_bps in 1_000_000_u64..20_000_000_000, seed: u64) {
        let mut link = Link::new(LinkConfig::new(rate_bps, 0), seed);
        let arrived = run(&mut link, 100, 1000, 0);
        let bits = 8 * 100 * (1000 + WIRE_OVERHEAD) as u128;
        let exact_us = (bits * 1_000_000).div_ceil(u128::from(rate_bps));
        prop_assert!(u128::from(arrived[99].at.as_micros()).abs_diff(exact_us) <= 1);
    }
}
