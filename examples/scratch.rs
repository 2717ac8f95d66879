use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::{
    capture::FrozenModel,
    influence::*,
    lab::{attacks::*, data::*, networks::*, training::*},
    learner::*,
};
use std::time::Instant;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let width: usize = std::env::args().nth(1).unwrap().parse()?;
    let epochs: usize = std::env::args().nth(2).unwrap().parse()?;
    let lr: f64 = std::env::args().nth(3).unwrap().parse()?;
    let limit: usize = std::env::args().nth(4).unwrap().parse()?;
    let bs: usize = std::env::args().nth(5).unwrap().parse()?;
    let data = Cifar10::open("../shared/data/cifar10")?;
    let train = data.train(Some(limit))?;
    let test = data.test(Some(2000))?;
    let trig = BadNet::checkerboard();
    let p = poison(train, &trig, PoisonConfig { victim: 8, target: 5, rate: 0.01, seed: 0 })?;
    let dev = Device::flex();
    dev.seed(0);
    let mut cfg = TrainingConfig::new("/tmp/scratch");
    cfg.epochs = epochs;
    cfg.learning_rate = lr;
    cfg.batch_size = bs;
    cfg.augmentation = Augmentation { shift: 2, flip: true };
    let mode = std::env::args().nth(6).unwrap_or_default();
    let net = ResNet9::new(width, 10, &dev.clone().autodiff());
    let t = Instant::now();
    let model = if mode == "plain" {
        train_plain(net, InMemDataset::new(p.samples.clone()), &cfg)?
    } else {
        let c = Collector::new(CollectorConfig::new())?;
        let tr = train_watched(net, InMemDataset::new(p.samples.clone()), &cfg, &c)?;
        println!("{:?}", tr.stats);
        tr.factors.save("/tmp/scratch/factors.safetensors")?;
        use burn::module::Module;
        tr.model.clone().save_file("/tmp/scratch/model")?;
        tr.model
    };
    let s = t.elapsed().as_secs_f64();
    println!("train {s:.1}s {:.0} img/s", (limit * epochs) as f64 / s);
    let f = FrozenModel::new(&model);
    let src = InMemDataset::new(test.clone());
    let t = Instant::now();
    let pr = predict(&f, &ImageSource::new(&src), 128)?;
    println!(
        "acc {} ({:.1}s)",
        pr.iter().zip(&test).filter(|(p, t)| p.label == t.label).count() as f64 / test.len() as f64,
        t.elapsed().as_secs_f64()
    );
    let tt = triggered_tests(&test, &trig, 8)?;
    let n = tt.len();
    let src = InMemDataset::new(tt);
    let pr = predict(&f, &ImageSource::new(&src), 128)?;
    println!("PSR {}", pr.iter().filter(|p| p.label == 5).count() as f64 / n as f64);
    Ok(())
}
use burn_delta_influence::lab::training::train as train_plain;
