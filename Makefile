# make: the program, build/signround; make help: all targets
CXX      ?= g++
NVCC     ?= $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA     ?= $(if $(NVCC),1,0)
BUILD    ?= build
# -ffp-contract=off: a fused multiply-add where the source has none would change how scales round, hence the integers.
CXXFLAGS ?= -O3
FLAGS    := -std=c++20 -Wall -Wextra -Werror -Wconversion -Wno-sign-conversion -ffp-contract=off -Isrc -pthread -MMD -MP
# GCC 12 sees overlapping copies in std::string's operator+ where there are none (its bug 105651).
FLAGS    += $(if $(findstring clang,$(CXX)),,-Wno-restrict)
# No built-in rules: they would look for sources of the .d files included below.
MAKEFLAGS += -r
MAKEFLAGS += $(if $(filter 0,$(MAKELEVEL)),-j$(shell nproc))
SOURCES  := $(filter-out src/cli/main.cpp src/ops/cpu/isa.cpp,$(shell find src -name '*.cpp' | sort))
TESTS    := $(sort $(wildcard tests/*.cpp))
FUZZERS  := $(patsubst tests/fuzz/fuzz_%.cpp,%,$(sort $(wildcard tests/fuzz/fuzz_*.cpp)))
# One binary for every processor: the CPU kernels are compiled once per instruction set and chosen at run time.
ISAS     := baseline $(if $(filter x86_64 amd64,$(shell uname -m)),avx2 avx512 avx512bf16)
ISA_FLAGS_avx2       := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512     := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512
ISA_FLAGS_avx512bf16 := $(ISA_FLAGS_avx512) -mavx512bf16
SANITIZE := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

OBJECTS  := $(SOURCES:%.cpp=$(BUILD)/%.o) $(ISAS:%=$(BUILD)/src/ops/cpu/isa_%.o) $(BUILD)/src/text/builtin_text.o
# The GPU backend is built in where nvcc is found, unless CUDA=0. ARCH=sm_90: for one kind of card alone, quicker to build.
CUDA_OBJECTS := $(patsubst %.cu,$(BUILD)/%.o,$(wildcard cuda/*.cu))
GPUS      = $(if $(ARCH),-arch=$(ARCH),$(foreach g,$(or $(CARDS),80 89 90),-gencode arch=compute_$g,code=sm_$g) -gencode arch=compute_90,code=compute_90)
NVFLAGS   = -std=c++20 -O3 $(GPUS) -ccbin $(CXX) --expt-relaxed-constexpr -DSIGNROUND_ISA=cuda -Isrc -I. -MMD -MP \
            -Werror all-warnings -Xcompiler -Wall,-Wextra,-pthread
ifneq ($(CUDA),0)
OBJECTS  += $(CUDA_OBJECTS)
LDLIBS   := -L$(dir $(realpath $(NVCC)))../lib64 -lcudart_static -ldl -lrt
endif
LINK      = $(CXX) $(CXXFLAGS) $(LDFLAGS) -pthread $^ $(LDLIBS) -o $@

$(BUILD)/signround: $(BUILD)/src/cli/main.o $(OBJECTS)   ## the program (default)
	$(LINK)

$(BUILD)/run-tests: $(TESTS:%.cpp=$(BUILD)/%.o) $(OBJECTS)
	$(LINK)

$(BUILD)/src/ops/cpu/isa_%.o: src/ops/cpu/isa.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(CXXFLAGS) $(ISA_FLAGS_$*) -DSIGNROUND_ISA=$* -c $< -o $@

$(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(CXXFLAGS) -c $< -o $@

$(BUILD)/src/text/builtin_text.o: src/text/builtin_text.S data/calibration.txt
	@mkdir -p $(@D)
	$(CXX) -c $< -o $@

$(TESTS:%.cpp=$(BUILD)/%.o): | $(BUILD)/doctest.found
$(BUILD)/doctest.found:
	@mkdir -p $(@D)
	@echo '#include <doctest/doctest.h>' | $(CXX) -x c++ -E - >/dev/null 2>&1 || tools/need.sh doctest-dev
	@touch $@

test: $(BUILD)/signround $(BUILD)/run-tests   ## all tests; the last line is: N passed, N failed
	@SIGNROUND=$(BUILD)/signround tools/test.sh $(BUILD)/run-tests
test-interop: $(BUILD)/signround   ## outside readers load what we write, of MODELS= too, in a Python environment of their own (network)
	@tests/interop/run.sh $< $(MODELS)

demo: $(BUILD)/signround      ## quantizes the model in data/ at 4 and 2 bits and shows what is left of it
	@tools/demo.sh $(BUILD)/signround

asan:                         ## program, tests and fuzzers under AddressSanitizer and UBSan, in build-asan
	@$(MAKE) --no-print-directory CUDA=0 BUILD=build-asan CXXFLAGS="$(SANITIZE)" \
	  $(addprefix build-asan/,signround run-tests $(FUZZERS:%=replay_%))

$(BUILD)/replay_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(OBJECTS)
	$(LINK)

fuzz-replay: asan             ## every file of tests/corpus once through its fuzzer, under the sanitizers
	@set -e; for f in $(FUZZERS); do build-asan/replay_$$f tests/corpus/$$f; done

build-fuzz/libfuzzer_%: build-fuzz/tests/fuzz/fuzz_%.o $(OBJECTS)
	$(LINK) -fsanitize=fuzzer

fuzz:                         ## T=60 seconds of libFuzzer for each of tests/fuzz (needs clang)
	@$(MAKE) --no-print-directory CUDA=0 BUILD=build-fuzz CXX=clang++ CXXFLAGS="$(SANITIZE) -fsanitize=fuzzer-no-link" \
	  $(FUZZERS:%=build-fuzz/libfuzzer_%)
	@set -e; for f in $(FUZZERS); do mkdir -p build-fuzz/corpus/$$f; \
	  build-fuzz/libfuzzer_$$f -max_total_time=$(or $(T),60) -artifact_prefix=build-fuzz/ build-fuzz/corpus/$$f tests/corpus/$$f; done

$(BUILD)/bench_%: $(BUILD)/bench/bench_%.o $(OBJECTS)
	$(LINK) $(if $(filter matmul,$*),-lopenblas)
$(BUILD)/bench/bench_matmul.o: | $(BUILD)/openblas.found
$(BUILD)/openblas.found:
	@tools/need.sh libopenblas-dev && mkdir -p $(@D) && touch $@
bench-cpu: $(BUILD)/bench_matmul $(BUILD)/bench_attention   ## matrix products beside OpenBLAS's, and attention
	@export OPENBLAS_THREAD_TIMEOUT=4; grep -qs avx512bw /proc/cpuinfo && export OPENBLAS_CORETYPE=SkylakeX; \
	  $(BUILD)/bench_matmul && $(BUILD)/bench_attention
bench-cuda: $(addprefix $(BUILD)/bench_,cuda ladder_attention ladder_qdq)   ## the GPU's kernels, and the steps that led to them
	@export COMMIT=$$(git rev-parse --short HEAD); for b in $^; do $$b || exit; done
$(BUILD)/%.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -c $< -o $@
$(BUILD)/cuda/qdq.o $(BUILD)/cuda/qdq_super.o $(BUILD)/bench/bench_ladder_qdq.o: NVFLAGS += -fmad=false  # as -ffp-contract=off above
$(BUILD)/cuda/attention_%.o: CARDS := 80 90  # minutes a card; code for 8.0 is what an 8.9 runs too
$(BUILD)/cuda/hopper_%.o: GPUS := -gencode arch=compute_90a,code=sm_90a  # its own instructions: for it alone
cuda: $(CUDA_OBJECTS)         ## the GPU backend alone (needs nvcc)

lint:                         ## file lengths, include directions, words that mark unfinished work
	@tools/lint.sh

size: $(BUILD)/signround      ## bytes of the program, lines of the source
	@size $<; find src cuda tests bench -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs cat | wc -l | sed 's/$$/ lines/'

clean:                        ## removes everything built
	rm -rf build build-*

help:                         ## this list
	@sed -n 's|^$$(BUILD)/||; s/^\([a-z-]*\):.*## */\1: /p' Makefile | sed 's/: /	/' | expand -t 14

.PHONY: test test-interop demo cuda asan fuzz-replay fuzz bench-cpu bench-cuda lint size clean help
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
