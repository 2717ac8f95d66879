//! burn's remote devices: a server process on the loopback interface computes what a local device would.
//!
//! `cargo test --features remote --test engine remote::`
#![cfg(feature = "remote")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn::remote::RemoteHost;
use burn::server::{RemoteServer, WebSocketTransport};
use burn::tensor::Device;
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassError, check_device};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{Damping, Influence, PartialScores, Preconditioner, Shard};
use burn_delta_influence::learner::{Collector, CollectorConfig};

use crate::compare::assert_close;
use crate::training::*;

/// What the child writes before its port.
const PORT: &str = "listening on port ";

/// Not a test: the server.
#[test]
#[ignore = "run by the tests of this file"]
fn server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{PORT}{}", listener.local_addr().unwrap().port());
    RemoteServer::new([Device::flex()]).serve(WebSocketTransport::from_listener(listener)).unwrap();
}

/// A server process and its device as the client sees it.
struct Server {
    child: Child,
    device: Device,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "remote::server", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once(PORT).map(|(_, port)| port.to_owned()));
        let host =
            RemoteHost::websocket(&format!("ws://127.0.0.1:{}", port.expect("the server says its port")));
        let device = Device::remote_options(&host).init().unwrap();
        Self { child, device }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn problem() -> (FrozenModel<Net>, KroneckerFactors, Items) {
    let (frozen, train) = (FrozenModel::new(&Net::new(7, &Device::flex())), Items(items(40, 1)));
    let config = in_batches(8);
    let mut factors = KroneckerFactors::fit(&frozen, &train, &train.all(), &loss, &config).unwrap();
    factors.correct_eigenvalues(&frozen, &train, &train.all(), &loss, &config).unwrap();
    (frozen, factors, train)
}

#[test]
fn a_remote_device_scores_its_shard() {
    let server = Server::start();
    let (frozen, factors, train) = problem();
    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let queries = influence.queries(&Items(items(3, 2)), &margin_of, &in_batches(3)).unwrap();
    let all = train.all();
    let run = || influence.score_run(&train, &all, &loss, &queries);
    let whole = run().run(&in_batches(8)).unwrap().scores;

    let local = run().shard(Shard::new(0, 2).unwrap()).run(&in_batches(8)).unwrap();
    let remote = run()
        .shard(Shard::new(1, 2).unwrap())
        .devices(vec![server.device.clone()])
        .run(&in_batches(8))
        .unwrap();
    assert_eq!((remote.first, remote.scores.samples.len()), (20, 20));
    let merged = PartialScores::merge(vec![remote, local]).unwrap().scores;
    assert_eq!(merged.samples, all);
    assert_close(merged.values(), whole.values(), 1e-5);

    // Both take parts of one run as they become free.
    let devices = vec![Device::flex(), server.device.clone()];
    let shared = run().devices(devices).run(&in_batches(4)).unwrap().scores;
    assert_close(shared.values(), whole.values(), 1e-5);
    assert_close(&shared.self_influence, &whole.self_influence, 1e-5);
}

#[test]
fn factors_are_collected_and_fitted_on_a_remote_device() {
    let server = Server::start();
    let train = Items(items(40, 1));
    let local = Net::new(7, &Device::flex());
    let expected = fit(&local, &train);
    let frozen = FrozenModel::new(&local.to_device(&server.device));
    let fitted = KroneckerFactors::fit(&frozen, &train, &train.all(), &loss, &in_batches(8)).unwrap();
    assert_same_covariances(&fitted, &expected, 1e-5);

    // The graph is the client's, the tensors are the server's: a guarded step at constant weights.
    let device = server.device.clone().autodiff();
    let model = Net::new(7, &device);
    let config = CollectorConfig::new().with_every(1).with_samples_per_step(0).with_warmup_steps(0);
    let collector = Collector::new(config.with_half_life_steps(0.0)).unwrap();
    for items in train.0.chunks(8) {
        let _step = collector.step(items.len());
        let _ = loss(&model, &batch(items, &device)).mean().backward();
    }
    assert_same_covariances(&collector.factors(&model).unwrap(), &expected, 1e-5);
}

/// Data whose `last` batch is the last that the server lives to see.
struct UntilKilled<'a> {
    items: &'a Items,
    server: Mutex<Option<Server>>,
    batches: AtomicUsize,
    last: usize,
}

impl<'a> UntilKilled<'a> {
    fn new(items: &'a Items, server: Server, last: usize) -> Self {
        Self { items, server: Mutex::new(Some(server)), batches: AtomicUsize::new(0), last }
    }
}

impl BatchSource for UntilKilled<'_> {
    type Batch = <Items as BatchSource>::Batch;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Self::Batch, PassError> {
        if self.batches.fetch_add(1, Ordering::Relaxed) == self.last {
            drop(self.server.lock().unwrap().take());
        }
        self.items.load(indices, device)
    }
}

#[track_caller]
fn assert_names_the_device(error: &dyn std::error::Error) {
    let said = error.to_string();
    println!("{said}");
    assert!(said.contains("Remote") && said.contains("Device::flex()"), "{said}");
}

#[test]
fn a_device_that_is_lost_while_scoring_is_named_and_what_was_complete_is_taken_over() {
    let (frozen, factors, train) = problem();
    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let queries = influence.queries(&Items(items(3, 2)), &margin_of, &in_batches(3)).unwrap();
    let all = train.all();
    let whole = influence.score_run(&train, &all, &loss, &queries).run(&in_batches(4)).unwrap().scores;

    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let devices = vec![server.device.clone()];
    let data = UntilKilled::new(&train, server, 5);
    let run = influence.score_run(&data, &all, &loss, &queries).parts(folder.path(), 4);
    let lost = run.devices(devices).run(&in_batches(4)).unwrap_err();
    assert_names_the_device(&lost);
    let kept = std::fs::read_dir(folder.path()).unwrap().count();
    assert!((1..10).contains(&kept), "{kept} parts were complete");

    // On another device: only the rest.
    let counted = UntilKilled::new(&train, Server::start(), usize::MAX);
    let run = influence.score_run(&counted, &all, &loss, &queries).parts(folder.path(), 4);
    let scores = run.run(&in_batches(4)).unwrap().scores;
    assert_eq!(counted.batches.into_inner(), 10 - kept);
    assert_close(scores.values(), whole.values(), 1e-5);
}

#[test]
fn a_device_that_is_lost_in_any_other_pass_is_an_error_too() {
    let (train, config) = (Items(items(40, 1)), in_batches(4));
    let model = Net::new(7, &Device::flex());

    let server = Server::start();
    let device = server.device.clone();
    let frozen = FrozenModel::new(&model.clone().to_device(&device));
    let fitted = KroneckerFactors::fit(&frozen, &train, &train.all(), &loss, &config).unwrap();
    let watched = Net::new(7, &device.clone().autodiff());
    let config_of_collector = CollectorConfig::new().with_every(1).with_warmup_steps(0);
    let collector = Collector::new(config_of_collector).unwrap();
    let step = collector.step(8);
    let _ = loss(&watched, &batch(&train.0[..8], &device.clone().autodiff())).mean().backward();
    drop(step);
    let data = UntilKilled::new(&train, server, 5);
    let lost = KroneckerFactors::fit(&frozen, &data, &train.all(), &loss, &config).unwrap_err();
    assert_names_the_device(&lost);

    // Whatever is asked of it afterwards.
    assert_names_the_device(&collector.factors(&watched).unwrap_err());
    assert_names_the_device(&check_device(&device).unwrap_err());
    assert_names_the_device(&FrozenModel::try_new(frozen.model()).unwrap_err());
    let refused = fitted.clone().correct_eigenvalues(&frozen, &train, &train.all(), &loss, &config);
    assert_names_the_device(&refused.unwrap_err());
    let refused = Influence::new(&frozen, &fitted, Preconditioner::Kfac, Damping::default());
    let refused = refused.and_then(|influence| influence.queries(&train, &margin_of, &config));
    assert_names_the_device(&refused.unwrap_err());
}
