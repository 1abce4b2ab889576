//! Concurrent puts a second, and the time of the CPU that one costs all three
//! processes together.

use super::SHAPES;
use crate::client::Puts;
use crate::round::Round;

pub async fn measure(round: &mut Round) -> anyhow::Result<()> {
    let (mut used, mut made) = (0.0, 0);
    let shapes = if round.quick { &SHAPES[..1] } else { &SHAPES[..] };
    for (clients, bytes) in shapes {
        let before = round.cpu()?;
        let load = Puts::new(*clients, *bytes).run(round.endpoints(), round.part).await?;
        used += (round.cpu()? - before).as_secs_f64();
        made += load.done();
        round.add(format!("puts_{clients}_{bytes}"), load.per_second);
        if (*clients, *bytes) == SHAPES[0] {
            round.add("put_p50_us", load.latency.value_at_quantile(0.5) as f64);
            round.add("put_p99_us", load.latency.value_at_quantile(0.99) as f64);
        }
    }
    round.add("put_cpu_us", used * 1e6 / made.max(1) as f64);
    Ok(())
}
