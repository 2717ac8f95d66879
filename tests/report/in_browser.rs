//! The report page in a real browser, clicked through.
//!
//! Needs Chromium and its driver (on Debian `apt-get install --no-install-recommends chromium chromium-driver`):
//! `cargo test --test report -- --ignored in_browser::`. `.ci/run` does that.

use std::time::Instant;

use burn_delta_influence::report::{AuditRecord, HtmlReport, Verdict};
use serde_json::json;
use tempfile::TempDir;

use crate::browser::{Browser, END, ENTER, ESCAPE, LEFT, RIGHT, TAB};
use crate::pages::{HANDLER, SCRIPT, audit, names};

/// Waits until something is so that comes by itself, two seconds at most.
fn soon(is_so: impl Fn() -> bool) {
    for _ in 0..100 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A page with so many flagged images, open in a browser, and what the console said while it was opened.
struct Page {
    browser: Browser,
    folder: TempDir,
}

impl Page {
    fn new(flagged: usize) -> Self {
        let page = Self { browser: Browser::start(), folder: tempfile::tempdir().unwrap() };
        page.write(Verdict::Poisoned, flagged);
        page.open();
        page
    }

    fn write(&self, verdict: Verdict, flagged: usize) {
        self.write_changed(verdict, flagged, |_| ());
    }

    fn write_changed(&self, verdict: Verdict, flagged: usize, change: impl FnOnce(&mut AuditRecord)) {
        let (mut record, data) = audit(verdict, flagged + 40, flagged);
        change(&mut record);
        let record = record.with_class_names(names());
        let report = HtmlReport::new(&record).with_training_set(&data).unwrap();
        report.save(self.folder.path().join("audit.html")).unwrap();
    }

    fn open(&self) {
        self.browser.open(&self.folder.path().join("audit.html"));
    }

    #[track_caller]
    fn assert_quiet(&self) {
        assert_eq!(self.browser.console(), Vec::<String>::new());
    }

    /// Presses Tab until the focus is in the gallery.
    fn tab_to_gallery(&self) {
        for _ in 0..80 {
            if self.browser.eval("document.activeElement.closest('#gallery') !== null") == true {
                return;
            }
            self.browser.press(TAB);
        }
        panic!("the Tab key does not lead to the gallery");
    }

    fn focused(&self) -> String {
        let caption = self.browser.eval("document.activeElement.querySelector('b')?.textContent ?? ''");
        caption.as_str().unwrap().to_owned()
    }

    fn first(&self) -> String {
        self.browser.text("#gallery li b")
    }

    fn viewer_is_open(&self) -> bool {
        self.browser.eval("document.querySelector('dialog').open") == true
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_page_opens_without_complaint_and_says_the_verdict_first() {
    let page = Page::new(20);
    let browser = &page.browser;
    let heading = browser.text("h1");
    assert!(heading.starts_with("Poisoned: 20 of 60 training images taught the model"), "{heading}");
    assert_eq!(browser.count("h1"), 1);
    assert_eq!(browser.eval("document.title"), heading.as_str());
    for landmark in ["header", "main", "nav", "footer"] {
        assert_eq!(browser.count(landmark), 1, "{landmark}");
    }
    // Every drawing has a text for those who don't see it.
    let described = "[...document.querySelectorAll('svg')].filter(svg => svg.getAttribute('role') === 'img' && \
                     svg.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id).textContent))";
    assert_eq!(browser.eval(&format!("{described}.length")), 3);
    let ids = "[...document.querySelectorAll('[id]')].map(element => element.id)";
    assert_eq!(browser.eval(&format!("new Set({ids}).size")), browser.eval(&format!("{ids}.length")));
    let loaded =
        "performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length";
    assert_eq!(browser.eval(loaded), 0);
    let broken = "[...document.images].filter(image => image.complete && image.naturalWidth === 0).length";
    assert_eq!(browser.eval(broken), 0);
    page.assert_quiet();

    // The console would have told.
    browser.eval("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">x</p>')");
    browser.eval("void (document.body.appendChild(new Image()).src = 'https://example.invalid/x.png')");
    let console = browser.console().join("\n");
    assert!(console.contains("style-src") && console.contains("img-src"), "{console}");
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn names_that_are_markup_are_shown_and_not_run() {
    let page = Page::new(20);
    let browser = &page.browser;
    let text = browser.text("body");
    for name in [SCRIPT, HANDLER] {
        assert!(text.contains(name), "{name} is not shown");
    }
    assert_eq!(browser.count("script"), 1);
    assert_eq!(browser.count("img[src=x], img:not([src^='data:image/png'])"), 0);
    assert_eq!(browser.count("[onerror], [style]"), 0);
    let options = browser.text("#label");
    assert!(options.contains(SCRIPT), "{options}");

    // In the viewer, which the script fills, too.
    browser.click("#gallery li button");
    let values = browser.text("#viewer-values");
    assert!(values.contains(HANDLER), "{values}");
    assert_eq!(browser.count("dialog img[src=x], dialog script"), 0);
    page.assert_quiet();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_click_enlarges_an_image_and_shows_all_its_values() {
    let page = Page::new(20);
    let browser = &page.browser;
    browser.click("#gallery li:nth-child(3) button");
    assert!(page.viewer_is_open());
    assert_eq!(browser.text("#viewer-title"), "Training image 17");
    let values = browser.text("#viewer-values");
    for value in ["position\n17", "score\n40.017", "rank by score\n3", "p-value\n1.0 × 10⁻⁵"] {
        assert!(values.contains(value), "{values}");
    }
    assert!(browser.text("#viewer-advice").starts_with("What to do: "));
    let [small, large] = ["#gallery li:nth-child(3) img", "#viewer-picture img"].map(|image| {
        browser.eval(&format!("document.querySelector('{image}').clientWidth")).as_u64().unwrap()
    });
    assert!(large > 2 * small, "{small} pixels, {large} in the viewer");
    let rendering = "getComputedStyle(document.querySelector('#viewer-picture img')).imageRendering";
    assert_eq!(browser.eval(rendering), "pixelated");
    browser.click("#viewer-next");
    assert_eq!(
        (browser.text("#viewer-title"), browser.text("#viewer-position")),
        ("Training image 16".to_owned(), "4 of 20".to_owned())
    );
    browser.click("#viewer-close");
    assert!(!page.viewer_is_open());
    assert_eq!(page.focused(), "#16");

    // Altered copies and clean images can be looked at, too.
    for (list, title) in [("#suspects", "Altered copy 1"), ("#contrast", "Training image 20, not flagged")] {
        browser.click(&format!("{list} .pictures li button"));
        assert_eq!(browser.text("#viewer-title"), title);
        browser.click("#viewer-close");
    }
    page.assert_quiet();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_keyboard_reaches_everything() {
    let page = Page::new(20);
    let browser = &page.browser;
    browser.press(TAB);
    assert_eq!(browser.eval("document.activeElement.className"), "skip");
    assert!(browser.eval("document.activeElement.getBoundingClientRect().left").as_f64().unwrap() >= 0.0);
    browser.press(ENTER);
    assert_eq!(browser.eval("document.activeElement.id"), "main");

    page.tab_to_gallery();
    assert_eq!(page.focused(), "#19");
    assert_eq!(browser.eval("getComputedStyle(document.activeElement).outlineStyle"), "solid");
    browser.press(RIGHT);
    browser.press(RIGHT);
    browser.press(LEFT);
    assert_eq!(page.focused(), "#18");
    browser.press(ENTER);
    assert!(page.viewer_is_open());
    assert_eq!(browser.text("#viewer-title"), "Training image 18");
    browser.press(RIGHT);
    browser.press(RIGHT);
    assert_eq!(browser.text("#viewer-title"), "Training image 16");
    browser.press(LEFT);
    browser.press(ESCAPE);
    assert!(!page.viewer_is_open());
    // A dialog's `close` event comes after it is closed.
    soon(|| page.focused() == "#17");
    assert_eq!(page.focused(), "#17", "the focus is on the image that was shown last");
    browser.press(END);
    assert_eq!(page.focused(), "#0");
    // One of the gallery's images takes the Tab key: the next one leaves it.
    browser.press(TAB);
    assert_eq!(browser.eval("document.activeElement.closest('#gallery')"), json!(null));
    page.assert_quiet();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn five_thousand_images_are_sorted_filtered_and_shown_in_parts() {
    let page = Page::new(5000);
    let browser = &page.browser;
    let start = Instant::now();
    page.open();
    let opened = start.elapsed();
    assert_eq!(
        (browser.count("#gallery li"), browser.text("#shown")),
        (200, "200 of 5,000 shown".to_owned())
    );
    assert_eq!(page.first(), "#4999");
    browser.click("#more");
    assert_eq!(
        (browser.count("#gallery li"), browser.text("#shown")),
        (400, "400 of 5,000 shown".to_owned())
    );
    assert_eq!(page.focused(), "#4799", "the first of the new ones has the focus");

    browser.choose("#sort", "index");
    assert_eq!((page.first(), browser.count("#gallery li")), ("#0".to_owned(), 200));
    browser.choose("#label", "0");
    assert_eq!((page.first(), browser.text("#shown")), ("#4".to_owned(), "200 of 1,000 shown".to_owned()));
    browser.choose("#sort", "rank");
    assert_eq!(page.first(), "#4999");
    browser.choose("#label", "");
    browser.choose("#sort", "label");
    let labels = "[...document.querySelectorAll('#gallery li')].every(item => item.dataset.label === '0')";
    assert_eq!(browser.eval(labels), true);

    // Going on leads beyond what is shown.
    browser.click("#gallery li:nth-child(200) button");
    browser.press(RIGHT);
    browser.press(ESCAPE);
    soon(|| browser.count("#gallery li") == 400); // once the dialog's `close` event has come
    assert_eq!(browser.count("#gallery li"), 400);
    let focused =
        "[...document.querySelectorAll('#gallery li')].indexOf(document.activeElement.closest('li'))";
    assert_eq!(browser.eval(focused), 200);
    // No limit: on a busy machine it says nothing. A page that hangs fails the browser's command after a minute.
    println!("opened after {opened:?}, done after {:?}", start.elapsed());
    page.assert_quiet();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn without_scripts_everything_is_there_to_be_read() {
    let page = Page::new(450);
    let browser = &page.browser;
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    page.open();
    // What the viewer would show stands under each picture.
    let values = "document.querySelector('#gallery dl').checkVisibility()";
    let shown = browser.devtools("Runtime.evaluate", json!({ "expression": values }));
    assert_eq!(shown["result"]["value"], true, "{shown}");
    // The test's own scripts are allowed again, after the page's had its chance.
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": false }));
    assert_eq!((browser.count("#gallery > ul > li"), browser.count("#gallery > details")), (200, 2));
    assert_eq!(browser.text("#gallery details summary"), "201 to 400");
    assert_eq!(browser.eval("document.getElementById('controls').checkVisibility()"), false);
    let last = "#gallery details:last-child li:last-child";
    let visible = format!("document.querySelector('{last}').checkVisibility()");
    assert_eq!(browser.eval(&visible), false);
    // By itself: what is above it gets its height when it is first scrolled to, and a click at a place may miss.
    browser.eval("document.querySelector('#gallery details:last-child summary').click()");
    assert_eq!(browser.eval(&visible), true);
    assert_eq!(browser.eval(&format!("document.querySelector('{last} b').textContent")), "#0");
}

/// Text that is hard to read: what contrasts with its background less than 4.5 to 1.
const FAINT: &str = r#"(() => {
    const channel = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
    const background = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const faint = [];
    let seen = 0;
    for (const element of document.querySelectorAll("body *")) {
        const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!text || !element.checkVisibility() || element.closest("script")) continue;
        const style = getComputedStyle(element);
        const svg = element instanceof SVGElement;
        const [a, b] = [parse(svg ? style.fill : style.color), background(svg ? element.closest("figure") : element)].map(luminance);
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        seen += 1;
        if (contrast < 4.5) faint.push(`${element.tagName} ${element.className} ${contrast.toFixed(2)}`);
    }
    return seen < 100 ? ["too little text was looked at"] : faint;
})()"#;

#[test]
#[ignore = "needs chromium and chromedriver"]
fn by_day_and_by_night_it_can_be_read() {
    let page = Page::new(20);
    let browser = &page.browser;
    let brightness = || {
        let colour =
            browser.eval("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)");
        colour.as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).sum::<u64>() / 3
    };
    for verdict in [Verdict::Poisoned, Verdict::Clean, Verdict::Inconclusive] {
        page.write(verdict, if verdict == Verdict::Poisoned { 20 } else { 0 });
        page.open();
        for (scheme, range) in [("light", 200..=255), ("dark", 0..=60)] {
            browser.prefer("prefers-color-scheme", scheme);
            assert!(range.contains(&brightness()), "{scheme}: {}", brightness());
            assert_eq!(browser.eval(FAINT), json!([]), "{scheme}, {verdict}");
        }
    }
    browser.prefer("prefers-reduced-motion", "no-preference");
    let scrolling = "getComputedStyle(document.documentElement).scrollBehavior";
    assert_eq!(browser.eval(scrolling), "smooth");
    browser.prefer("prefers-reduced-motion", "reduce");
    assert_eq!(browser.eval(scrolling), "auto");
    page.assert_quiet();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn on_a_telephone_nothing_sticks_out() {
    let page = Page::new(20);
    let browser = &page.browser;
    browser.width(360, 740, true);
    page.open();
    browser.eval("document.querySelectorAll('details').forEach((part) => { part.open = true; })");
    let wide = "document.documentElement.scrollWidth";
    assert_eq!(browser.eval(wide), 360);
    assert_eq!(browser.eval("document.documentElement.clientWidth"), 360);
    let small = "Math.min(...[...document.querySelectorAll('svg text')].map((text) => text.getBoundingClientRect().height))";
    assert!(browser.eval(small).as_f64().unwrap() >= 9.0, "{}", browser.eval(small));
    let narrow =
        "Math.min(...[...document.querySelectorAll('#gallery button')].map((button) => button.clientWidth))";
    assert!(browser.eval(narrow).as_u64().unwrap() >= 44, "too narrow for a finger");

    browser.click("#gallery li button");
    let dialog = browser.eval("(({ left, right, bottom }) => [left, right, bottom])(document.querySelector('dialog').getBoundingClientRect())");
    let edges: Vec<f64> = dialog.as_array().unwrap().iter().map(|edge| edge.as_f64().unwrap()).collect();
    assert!(edges[0] >= 0.0 && edges[1] <= 360.0 && edges[2] <= 740.0, "{edges:?}");
    assert_eq!(browser.eval(wide), 360);
    assert_eq!(
        browser.eval(
            "(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.querySelector('dialog'))"
        ),
        0
    );
    page.assert_quiet();
}

/// The record with so many suspects, every other one of them clean.
fn with_suspects(record: &mut AuditRecord, count: usize) {
    let (suspect, evidence) = (record.suspects[0].clone(), record.evidence.suspects[0].clone());
    record.suspects = (0..count).map(|_| suspect.clone()).collect();
    record.evidence.suspects = (0..count).map(|_| evidence.clone()).collect();
    for (number, suspect) in record.suspects.iter_mut().enumerate() {
        suspect.id = format!("suspect {number}");
        if number % 2 == 1 {
            (suspect.verdict, suspect.flagged, suspect.p_value) = (Verdict::Clean, 0, Some(0.4));
        }
    }
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn several_suspects_are_unfolded_one_by_one() {
    let page = Page::new(20);
    let browser = &page.browser;
    page.write_changed(Verdict::Poisoned, 20, |record| with_suspects(record, 6));
    page.open();
    let heading = browser.text("h1");
    assert_eq!(
        heading,
        "Poisoned: 20 of 60 training images are behind the wrong answers on 3 of 6 suspects."
    );
    assert_eq!(browser.count("details.suspect"), 6);
    assert_eq!(browser.count("details.suspect[open]"), 3);
    assert_eq!(browser.text("details.suspect summary"), "suspect 0: poisoned");
    let ids = "[...document.querySelectorAll('[id]')].map(element => element.id)";
    assert_eq!(browser.eval(&format!("new Set({ids}).size")), browser.eval(&format!("{ids}.length")));

    // What is folded can be reached, by a click and by the keyboard alone, and says what its suspect is about.
    let last = "document.querySelectorAll('details.suspect')[5]";
    assert_eq!(browser.eval(&format!("{last}.querySelector('dl').checkVisibility()")), false);
    browser.click("details.suspect:nth-of-type(6) > summary");
    assert_eq!(browser.eval(&format!("{last}.querySelector('dl').checkVisibility()")), true);
    let said = browser.eval(&format!("{last}.innerText"));
    assert!(said.as_str().unwrap().contains("clean"), "{said}");
    browser.press(ENTER);
    assert_eq!(browser.eval(&format!("{last}.open")), false);

    browser.width(360, 740, true);
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), 360);
    page.assert_quiet();
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn of_many_suspects_the_first_are_shown_and_the_rest_counted() {
    let page = Page::new(20);
    let browser = &page.browser;
    page.write_changed(Verdict::Poisoned, 20, |record| with_suspects(record, 33));
    page.open();
    assert!(browser.text("h1").ends_with("17 of 33 suspects."), "{}", browser.text("h1"));
    assert_eq!(browser.count("details.suspect"), 20);
    assert!(browser.text("main").contains("13 more suspects, which are not shown here"));
    assert!(browser.text("main").contains("Drawn for 4 suspects, those shown first above."));
    page.assert_quiet();
}
