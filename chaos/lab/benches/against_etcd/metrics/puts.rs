//! Concurrent puts a second, and the time of the CPU that one costs all three
//! processes together.

use super::SHAPES;
use crate::client::Puts;
use crate::round::Round;

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    let (before, mut made) = (round.cpu()?, 0);
    let shapes = if round.quick { &SHAPES[..1] } else { &SHAPES[..] };
    for (clients, bytes) in shapes {
        let load = Puts::new(*clients, *bytes).run(round.endpoints(), round.part).await?;
        made += load.done();
        round.add(format!("puts_{clients}_{bytes}"), load.per_second);
        if (*clients, *bytes) == SHAPES[0] {
            round.add("put_p50_us", load.latency.value_at_quantile(0.5) as f64);
            round.add("put_p99_us", load.latency.value_at_quantile(0.99) as f64);
        }
    }
    round.add_cpu("put", before, made)
}
