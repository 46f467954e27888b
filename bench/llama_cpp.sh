# Sourced by the comparisons: fetches and builds the pinned llama.cpp. Needs $cache and the functions say and stop.

# The source tree, in $source; empty: from the PyPI package llama-cpp-python 0.3.36, into $cache.
llama_cpp_source() {
    [[ -z $source ]] || return 0
    source=$cache/llama_cpp_python-0.3.36/vendor/llama.cpp
    if [[ ! -f $source/convert_hf_to_gguf.py ]]; then
        say "fetching llama.cpp (source package llama-cpp-python 0.3.36) into $cache"
        python3 -m pip download -q --no-deps --no-binary llama-cpp-python --dest "$cache" llama-cpp-python==0.3.36
        tar -xf "$cache"/llama_cpp_python-0.3.36.tar.gz -C "$cache"
    fi
}

# llama_cpp_build TARGET NATIVE: the build with bin/TARGET, in $build; empty: built from $source into $cache, with GGML_NATIVE=NATIVE.
llama_cpp_build() {
    local target=$1 native=$2 tools
    [[ -n $build ]] || build=$cache/llama.cpp-build$([[ $native == OFF ]] || echo -native)
    [[ ! -x $build/bin/$target ]] || return 0
    # Somebody else's build is left as it is.
    [[ $build == "$cache"/llama.cpp-build* ]] || stop "$build has no bin/$target"
    say "building $target in $build"
    if [[ ! -x $cache/build-tools/bin/ninja ]]; then
        python3 -m venv "$cache/build-tools"
        "$cache/build-tools/bin/python" -m pip install -q cmake ninja
    fi
    tools=$cache/build-tools/bin
    PATH=$tools:$PATH cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DGGML_NATIVE=$native" -DLLAMA_CURL=OFF
    PATH=$tools:$PATH cmake --build "$build" --target "$target"
}
