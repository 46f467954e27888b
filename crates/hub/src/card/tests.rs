use super::*;

const SOURCE: &str = "---\nlicense: other\nlicense_name: \"some: license\"\nlicense_link: LICENSE\nlanguage:\n- en\n- 'no'  # Norwegian\n\
    tags: [chat, transformers, \"a, b\"]\npipeline_tag: text-generation\nwidget:\n- text: hi\n---\n# Original\n";

fn figures() -> Figures {
    Figures {
        text: "britannica.txt".to_owned(),
        windows: 8,
        n_ctx: 512,
        perplexity_source: (15.9231, 0.3121),
        perplexity: (16.4404, 0.3251),
        kld: (0.031_24, 0.001_12),
        same_top1: (0.9312, 0.0041),
        kld_histogram: (-6.0, 0.5, vec![0, 0, 2, 10, 40, 80, 100, 60, 20, 4, 1]),
    }
}

fn file(name: &str, file_type: &str, bytes: u64, bits: f64) -> CardFile {
    CardFile {
        shards: vec![(name.to_owned(), bytes, "ab".repeat(32))],
        file_type: file_type.to_owned(),
        bits_per_weight: Some(bits),
        verdict: Verdict::Faithful,
        report: Some(format!("{name}.report.md")),
        figures: Some(figures()),
    }
}

fn card() -> Card {
    Card {
        repo: "me/Model-1B-GGUF".to_owned(),
        endpoint: "https://huggingface.co".to_owned(),
        quantized_by: "me".to_owned(),
        base_model: Some("org/Model-1B".to_owned()),
        source: "Model-1B".to_owned(),
        revision: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        source_card: Some(SOURCE.to_owned()),
        tools: vec!["ggufsmith 0.1.0".to_owned()],
        reference: Some("llama.cpp b9999".to_owned()),
        commands: vec![["convert", "org/Model-1B", "--type", "Q4_K_M", "--out", "a b.gguf"].map(str::to_owned).to_vec()],
        imatrix: Some("imatrix.gguf".to_owned()),
        files: vec![
            file("Model-1B-Q4_K_M.gguf", "Q4_K_M", 807_694_464, 4.85),
            CardFile {
                shards: (1..=2)
                    .map(|n| (format!("Model-1B-F16-0000{n}-of-00002.gguf"), 1_240_000_000, "cd".repeat(32)))
                    .collect(),
                verdict: Verdict::NotVerified,
                report: None,
                figures: None,
                ..file("", "F16", 0, 16.0)
            },
        ],
        plot: Some("ggufsmith-kl-divergence.svg".to_owned()),
    }
}

#[test]
fn a_new_card() {
    let text = card().render(None);
    let golden = include_str!("golden.md");
    assert_eq!(text, golden, "the card has changed; if it should:\n{text}");
}

#[test]
fn our_part_is_replaced_in_place_and_nothing_else_changes() {
    let first = card().render(None);
    assert_eq!(card().render(Some(&first)), first, "the same files, the same card");
    let edited = first.replace("# Model-1B-GGUF\n", "# My title\n\nMy words.\n").replace("license: other", "license: mit # mine");
    let edited = edited + "\n## Thanks\n\nTo all.\n";
    let mut other = card();
    other.files.pop();
    let again = other.render(Some(&edited));
    assert!(again.contains("# My title\n\nMy words.\n") && again.ends_with("\n## Thanks\n\nTo all.\n"), "{again}");
    assert!(again.contains("license: mit # mine\n") && !again.contains("license: other"), "{again}");
    assert!(!again.contains("F16") && again.matches(BEGIN).count() == 1 && again.matches(END).count() == 1, "{again}");
}

#[test]
fn a_card_of_somebody_else_keeps_its_words_and_its_order() {
    let existing = "---\r\n# a comment\r\ntags:\r\n  - zeta # last\r\n  - gguf\r\nbase_model: &anchor [x/y]\r\ncustom:\r\n  - {a: 1}\r\n---\r\nHello.\r\n";
    let text = card().render(Some(existing));
    let expected = "---\n# a comment\ntags:\n- zeta\n- gguf\n- chat\n- \"a, b\"\n- quantized\n- llama.cpp\n- imatrix\nbase_model: &anchor [x/y]\ncustom:\n  - {a: 1}\nlicense: other\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("\n---\nHello.\n\n<!-- ggufsmith:begin"), "{text}");
    for broken in ["---\nnever: ends\n", "no front matter\n", "---\n"] {
        let text = card().render(Some(broken));
        assert!(text.starts_with("---\nlicense: other\n") && text.contains(&format!("---\n{}", broken.trim_end())), "{text}");
    }
}

#[test]
fn markers_that_do_not_match_are_left_alone() {
    for existing in [format!("x {END} y {BEGIN} z"), format!("x {BEGIN} y")] {
        let text = card().render(Some(&existing));
        assert!(text.contains(&existing) && text.trim_end().ends_with(END), "{text}");
    }
}

#[test]
fn hostile_words_stay_words() {
    let evil = format!("x|`](http://evil) <script>@all</script>\n{END}\n---\nlicense: evil ```\u{202e} www.evil.com");
    let mut card = card();
    card.base_model = None;
    card.source = evil.clone();
    card.tools = vec![evil.clone()];
    card.reference = Some(evil.clone());
    card.imatrix = Some(evil.clone());
    card.commands = vec![vec![evil.clone()]];
    card.quantized_by = evil.clone();
    card.source_card =
        Some("---\nlicense: \"a\\nbase_model: evil\"\nlanguage: *all\ntags: [\"x\\\"y\", {a: b}]\n---\n".to_owned());
    card.files[0].shards[0].0 = evil.clone();
    card.files[0].file_type = evil.clone();
    card.files[0].report = Some(evil.clone());
    if let Some(figures) = &mut card.files[0].figures {
        figures.text = evil.clone();
    }
    let text = card.render(None);
    let body = Front::split(&text).1;
    assert_eq!((body.matches(BEGIN).count(), body.matches(END).count()), (1, 1), "{text}");
    assert_eq!(text.lines().filter(|line| *line == "---").count(), 2, "{text}");
    // What is in blocks of code is shown as it is.
    let outside: String = body.split("\n```").step_by(2).collect();
    assert!(!outside.contains("<script") && !body.contains('\u{202e}') && !outside.contains("](http://evil"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("license:")), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("```")).count() % 2, 0, "{text}");
    let row = text.lines().find(|line| line.starts_with("| x")).unwrap();
    assert_eq!(row.replace("\\|", "").matches('|').count(), 9, "{row}");
    assert!(!divergences(&card.files).unwrap().contains("<script"));
}

#[test]
fn words_of_front_matter_are_read_as_yaml_reads_them() {
    let value = |line: &str| Front::split(&format!("---\n{line}\n---\n")).0.value("k");
    let one = |word: &str| Some(Value::One(word.to_owned()));
    let many = |words: &[&str]| Some(Value::Many(words.iter().map(|word| (*word).to_owned()).collect()));
    assert_eq!(value("k: apache-2.0"), one("apache-2.0"));
    assert_eq!(value("k:   a b  # comment"), one("a b"));
    assert_eq!(value("k: 'it''s' # c"), one("it's"));
    assert_eq!(value("k: \"a\\\"#b\""), one("a\"#b"));
    assert_eq!(value("k:\n- a\n- b"), many(&["a", "b"]));
    assert_eq!(value("k: # c\n  - a\n\n  # c\n  - \"b c\""), many(&["a", "b c"]));
    assert_eq!(value("k: [a, 'b, c', \"d\"]"), many(&["a", "b, c", "d"]));
    assert_eq!(value("k: [a,\n  b,]"), many(&["a", "b"]));
    for other in [
        "k: *a",
        "k: {a: b}",
        "k: |\n  a",
        "k: >-\n  a",
        "k: a\n  b",
        "k:\n  a: b",
        "k: [a, [b]]",
        "k: [a",
        "k:",
        "k: ~",
        "k: !x y",
        "k: a: b",
    ] {
        assert_eq!(value(other), None, "{other}");
    }
}

#[test]
fn words_that_yaml_takes_for_others_are_quoted() {
    let mut front = Front::default();
    let words = ["en", "no", "1e3", "2024-01-01", "a: b", "#x", "x y", "ü", "a\u{85}b", "-", "org/Name_1.0", "Null", "1.0"];
    front.add("k", Some(Value::Many(words.map(str::to_owned).to_vec())));
    assert_eq!(
        front.text(),
        "---\nk:\n- en\n- \"no\"\n- \"1e3\"\n- \"2024-01-01\"\n- \"a: b\"\n- \"#x\"\n- \"x y\"\n- \"ü\"\n- \"a\\u0085b\"\n- \"-\"\n- org/Name_1.0\n- \"Null\"\n- \"1.0\"\n---\n"
    );
}

#[test]
fn a_plot_wants_figures() {
    let files = card().files;
    let svg = divergences(&files).unwrap();
    assert_eq!((svg.matches("<path").count(), svg.matches("</svg>").count()), (1, 1));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert_eq!(divergences(&files[1..]), None);
    let mut broken = files;
    for histogram in
        [(f64::NAN, 0.5, vec![1]), (0.0, 0.0, vec![1]), (0.0, 1.0, vec![0]), (-1e300, 1e300, vec![1, 1]), (0.0, 1.0, vec![])]
    {
        broken[0].figures.as_mut().unwrap().kld_histogram = histogram;
        assert_eq!(divergences(&broken), None);
    }
}

#[test]
fn a_lossless_file_does_not_flatten_the_others() {
    let mut card = card();
    card.files.push(CardFile {
        figures: Some(Figures { kld: (2.3e-9, 4e-11), ..figures() }),
        ..file("Model-1B-BF16.gguf", "BF16", 9, 16.0)
    });
    let plot = plot::divergences(&card.files).unwrap();
    assert!(plot.matches("<path").count() == 1 && plot.contains("Model-1B-BF16.gguf: not drawn, its mean is 2.30e-9"), "{plot}");
    let text = card.render(None);
    assert!(text.contains("| (2.300\u{a0}±\u{a0}0.040)e-9 |"), "{text}");
    // One that is far away is not proposed.
    card.files[0].figures = Some(Figures { kld: (0.27, 0.02), ..figures() });
    assert!(card.render(None).contains("llama-server -hf me/Model-1B-GGUF:BF16"));
}
