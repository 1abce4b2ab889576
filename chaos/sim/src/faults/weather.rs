//! The network is slow and loses, repeats and breaks things.

use std::sync::Arc;
use std::time::Duration;

use super::between;
use crate::network::Weather;
use crate::run::Run;

pub async fn inject(run: Arc<Run>) {
    run.tally.fault("bad-weather");
    let weather = Weather {
        delay_min: Duration::from_micros(200),
        delay_max: between(&run, 5, 60),
        loss: run.env.random_below(30),
        twice: run.env.random_below(20),
        breaks: run.env.random_below(60),
    };
    run.trace.line(|| format!("{weather:?}"));
    run.network.set_weather(weather);
    run.env.sleep(between(&run, 500, 4000)).await;
    run.network.set_weather(Weather::FAIR);
}
