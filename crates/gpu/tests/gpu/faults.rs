//! Whatever happens to the device, the bytes are the CPU's, and what happened is said.
use crate::Test;
use crate::common::{by_textbook, differing, kernel_named, on_gpu};
use ggufsmith_core::{Rows, Words, Worker};
use ggufsmith_gpu::testing::{Fault, Testing};
use ggufsmith_gpu::{Gpu, GpuError, GpuWorker, Kernel, Options, Selection, SelfTest, Summary, adversarial};
use ggufsmith_shaders::{ARITHMETIC, EXACT, Words as ShaderWords, parts};
use std::time::Duration;

const WORDS: Words = Words::BF16;
/// Source bytes of a slot, so that a chunk takes several dispatches.
const SLOT: usize = 16 << 10;

pub fn trials() -> Vec<Test> {
    let tests: [(&str, fn()); 11] = [
        ("the device is lost between chunks", device_lost),
        ("the device is lost inside a chunk", device_lost_inside_a_chunk),
        ("device memory runs out", out_of_memory),
        ("a dispatch is too large", too_many_workgroups),
        ("wgpu panics", panic),
        ("a dispatch takes too long", timeout),
        ("a wrong bit is found and its chunks taken back", wrong_bit),
        ("workers of one device take back together", two_workers),
        ("a wrong first chunk never leaves", wrong_from_the_start),
        ("bytes that go wrong after the last comparison are found at the end", wrong_at_the_end),
        ("a kernel that fails its self-test is not used", failed_self_test),
    ];
    tests.into_iter().map(|(name, test)| -> Test { (format!("faults::{name}"), Box::new(test)) }).collect()
}

fn open(fault: Option<Fault>, check_every: u64) -> Gpu {
    let testing = Testing { fault, ..Testing::default() };
    Gpu::open(Selection::Any, Options { slot_bytes: SLOT, check_every, testing, ..Options::default() }).unwrap()
}

fn kernel() -> &'static Kernel {
    kernel_named("Q4_0")
}

/// A chunk of so many slots.
fn chunk(slots: usize, seed: u64) -> Vec<u8> {
    let mut source = adversarial::data(WORDS, 32, slots * SLOT / WORDS.bytes(), seed);
    source.truncate(slots * SLOT);
    source
}

/// Encode 10 chunks; the numbers of those that are wrong.
fn wrong_chunks(worker: &mut GpuWorker, slots: usize) -> Vec<u64> {
    (0..10)
        .filter(|seed| {
            let source = chunk(slots, *seed);
            differing(&on_gpu(worker, kernel(), WORDS, &source), &by_textbook(kernel(), WORDS, &source)).0 != 0
        })
        .collect()
}

/// Ten good chunks, the first `on_gpu` of which came from the device.
fn check_fallback(fault: Fault, slots: usize, on_gpu: u64) -> Summary {
    let gpu = open(Some(fault), 0);
    let mut worker = gpu.worker().unwrap();
    assert_eq!(wrong_chunks(&mut worker, slots), [0; 0]);
    let summary = gpu.summary();
    assert_eq!((summary.gpu_chunks, summary.cpu_chunks), (on_gpu, 10 - on_gpu));
    assert_eq!(worker.retracted(), [0; 0], "a device that stops has not lied");
    // It is over for later workers too.
    assert_eq!(gpu.worker().err(), summary.failure);
    summary
}

fn device_lost() {
    let failure = check_fallback(Fault::DeviceLost { after: 4 }, 1, 4).failure;
    assert!(matches!(failure, Some(GpuError::Lost { .. })), "{failure:?}");
}

fn device_lost_inside_a_chunk() {
    let failure = check_fallback(Fault::DeviceLost { after: 4 * 5 + 3 }, 5, 4).failure;
    assert!(matches!(failure, Some(GpuError::Lost { .. })), "{failure:?}");
}

fn out_of_memory() {
    let failure = check_fallback(Fault::OutOfMemory { after: 3 }, 1, 3).failure;
    assert!(matches!(failure, Some(GpuError::OutOfMemory { .. })), "{failure:?}");
}

/// The driver's own refusal, caught by the error scope of the dispatch.
fn too_many_workgroups() {
    let failure = check_fallback(Fault::TooManyWorkgroups { after: 3 }, 1, 3).failure;
    assert!(matches!(failure, Some(GpuError::Refused { .. })), "{failure:?}");
}

fn panic() {
    let failure = check_fallback(Fault::Panic { after: 3 }, 1, 3).failure;
    assert!(matches!(failure, Some(GpuError::Lost { .. })), "{failure:?}");
}

/// A guess that takes long to make, and a patience that is shorter.
fn timeout() {
    let slow =
        "var x = 0u; for (var i = 0u; i < 8000000u; i++) { x = x * 1664525u + bits; } if (x == 1u) { return 0u; }\n    let m =";
    let (file, exact) = part(EXACT);
    let exact = exact.replacen("let m =", slow, 1);
    let testing = Testing { replace: vec![(file, exact)], skip_self_test: true, ..Testing::default() };
    let options = Options { slot_bytes: SLOT, timeout: Duration::from_millis(1), testing, ..Options::default() };
    let gpu = Gpu::open(Selection::Any, options).unwrap();
    let mut worker = gpu.worker().unwrap();
    assert_eq!(wrong_chunks(&mut worker, 1), [0; 0]);
    let summary = gpu.summary();
    assert!(matches!(summary.failure, Some(GpuError::Timeout { .. })), "{:?}", summary.failure);
    // On a busy machine a dispatch may end before anybody looks at the clock: its chunk counts. The rest is the CPU's.
    assert_eq!(summary.cpu_chunks + summary.gpu_chunks, 10);
    assert!(summary.cpu_chunks >= 5, "{} chunks", summary.cpu_chunks);
}

fn part(file: &'static str) -> (&'static str, String) {
    let parts = parts(&ggufsmith_shaders::Q4_0, ShaderWords::Bf16);
    (file, parts.iter().find(|part| part.file == file).unwrap().text.to_owned())
}

/// From the sixth dispatch on a bit is wrong; chunks 0, 4 and 8 are compared, so that the eighth one is where it comes out.
fn wrong_bit() {
    let gpu = open(Some(Fault::WrongBit { after: 5 }), 4);
    let mut worker = gpu.worker().unwrap();
    assert_eq!(wrong_chunks(&mut worker, 1), [5, 6, 7]);
    // Also those that happen to be right: who gave wrong bytes is not believed. 0 and 4 were compared.
    assert_eq!(worker.retracted(), [1, 2, 3, 5, 6, 7]);
    let summary = gpu.summary();
    let mismatch = summary.mismatch.unwrap();
    assert_eq!((mismatch.kernel, mismatch.words), ("Q4_0", WORDS));
    assert_ne!(mismatch.expected, mismatch.found);
    assert_eq!((summary.gpu_chunks, summary.cpu_chunks, summary.checked_chunks), (8, 2, 3));
    assert_eq!(summary.failure, None);
}

fn two_workers() {
    let gpu = open(Some(Fault::WrongBit { after: 10 }), 11);
    let (mut first, mut second) = (gpu.worker().unwrap(), gpu.worker().unwrap());
    assert_eq!(wrong_chunks(&mut first, 1), [0; 0]);
    wrong_chunks(&mut second, 1);
    assert_eq!(
        first.retracted(),
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
        "the first one is under suspicion for what the second one's chunk showed"
    );
}

/// No chunk is compared after the fifth: the test at the end has to notice.
fn wrong_at_the_end() {
    let gpu = open(Some(Fault::WrongBit { after: 5 }), 100);
    let mut worker = gpu.worker().unwrap();
    assert_eq!(wrong_chunks(&mut worker, 1), [5, 6, 7, 8, 9]);
    assert_eq!(gpu.summary().mismatch, None);
    assert_eq!(worker.retracted(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(gpu.summary().mismatch.is_some());
}

fn wrong_from_the_start() {
    let gpu = open(Some(Fault::WrongBit { after: 0 }), 100);
    let mut worker = gpu.worker().unwrap();
    assert_eq!(wrong_chunks(&mut worker, 1), [0; 0]);
    assert_eq!(worker.retracted(), [0; 0]);
    assert!(gpu.summary().mismatch.is_some());
}

fn failed_self_test() {
    let (file, text) = part(ARITHMETIC);
    let text = text.replace("a * b", "a * (b * 1.0000002)");
    let testing = Testing { replace: vec![(file, text)], ..Testing::default() };
    let gpu = Gpu::open(Selection::Any, Options { testing, ..Options::default() }).unwrap();
    let mut worker = gpu.worker().unwrap();
    assert_eq!(wrong_chunks(&mut worker, 1), [0; 0]);
    let summary = gpu.summary();
    let [rejected] = &summary.rejected[..] else { panic!("{:?}", summary.rejected) };
    assert_eq!((rejected.kernel, rejected.words), ("Q4_0", WORDS));
    assert!(matches!(rejected.self_test, SelfTest::Failed { wrong: 1.., .. }));
    assert_eq!((summary.gpu_chunks, summary.cpu_chunks, summary.failure), (0, 10, None));
    // Its length check is the encoder's.
    let encoder = kernel().encoder().unwrap();
    let rows = Rows { words: WORDS, cols: 33, bytes: &[0; 66] };
    let mut out = [0; 18];
    assert_eq!(worker.encode(encoder, rows, None, &mut out), encoder.encode(rows, None, &mut out));
}
