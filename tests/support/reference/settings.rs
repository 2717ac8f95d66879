//! Layer settings, as the manifest writes them: `Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), bias=False)`.

use burn::nn::PaddingConfig2d;

/// A layer of a reference network. Sizes and bias come from its tensors.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    Linear,
    Conv {
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        groups: usize,
        padding: PaddingConfig2d,
    },
    Norm {
        epsilon: f64,
    },
}

impl Settings {
    /// Parses a layer's description.
    ///
    /// # Panics
    /// If the layer is none of the three kinds, or pads with anything but zeros.
    pub fn parse(text: &str) -> Self {
        let (kind, arguments) = text.split_once('(').unwrap_or((text, ""));
        match kind.trim() {
            "Linear" => Self::Linear,
            "Conv2d" => conv(arguments),
            "BatchNorm2d" => Self::Norm { epsilon: argument(arguments, "eps").map_or(1e-5, |v| number(&v)) },
            _ => panic!("unknown layer in the manifest: {text}"),
        }
    }
}

fn conv(arguments: &str) -> Settings {
    let mode = argument(arguments, "padding_mode").unwrap_or_else(|| "zeros".to_owned());
    assert_eq!(mode.trim_matches('\''), "zeros", "padding mode in {arguments}");
    let pair = |key: &str, default| argument(arguments, key).map_or(default, |value| numbers(&value));
    let kernel = pair("kernel_size", [1, 1]);
    let dilation = pair("dilation", [1, 1]);
    let padding = match argument(arguments, "padding").as_deref().map(|value| value.trim_matches('\'')) {
        None | Some("valid") => PaddingConfig2d::Valid,
        Some("same") => {
            // torch's rule: the dilated kernel less one, the odd one at the end.
            let total = [0, 1].map(|axis| dilation[axis] * (kernel[axis] - 1));
            let start = total.map(|total| total / 2);
            PaddingConfig2d::Explicit(start[0], start[1], total[0] - start[0], total[1] - start[1])
        }
        Some(value) => {
            let [rows, columns] = numbers(value);
            PaddingConfig2d::Explicit(rows, columns, rows, columns)
        }
    };
    let stride = pair("stride", [1, 1]);
    let groups = argument(arguments, "groups").map_or(1, |value| number(&value));
    Settings::Conv { kernel, stride, dilation, groups, padding }
}

/// The text behind `key=`: a parenthesised list or a single word.
fn argument(arguments: &str, key: &str) -> Option<String> {
    let mut depth = 0;
    let parts = arguments.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth <= 0 && (c == ',' || (c == ')' && depth < 0))
    });
    parts
        .filter_map(|part| part.split_once('='))
        .find_map(|(name, value)| (name.trim() == key).then(|| value.trim().to_owned()))
}

fn numbers(value: &str) -> [usize; 2] {
    let found: Vec<usize> =
        value.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(number).collect();
    match found[..] {
        [both] => [both, both],
        [rows, columns] => [rows, columns],
        _ => panic!("one or two numbers expected: {value}"),
    }
}

fn number<T: std::str::FromStr>(value: &str) -> T {
    value.trim().parse().unwrap_or_else(|_| panic!("a number expected: {value}"))
}
