// What every kernel is given.
//
// binding 0  uniform             `params`
// binding 1  storage, read       `src`: the elements, packed as the chosen words_*.wgsl reads them
// binding 2  storage, read_write `dst`: little-endian output words; which word holds what is said in each kernel's header
//
// One invocation, or some neighbours, encode one unit (each kernel's header says how many elements that is) and write every word of it.

const WORKGROUP: u32 = 64u;

struct Params {
    // Units to encode; invocations beyond the last one write nothing.
    units: u32,
    // Always 0. The compiler does not know it, see `opaque` in arithmetic.wgsl.
    zero: u32,
    // Elements per block, for kernels whose block length is chosen at run time.
    block_elems: u32,
    // First word of the output's second plane, for kernels that have one.
    second_plane: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> src: array<u32>;
@group(0) @binding(2) var<storage, read_write> dst: array<u32>;
