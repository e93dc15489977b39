# make            the program, build/signround
# make help       all targets
CXX      ?= g++
BUILD    ?= build
# -ffp-contract=off: a fused multiply-add where the source has none would change how scales round, hence the integers.
CXXFLAGS ?= -O3
FLAGS    := -std=c++20 -Wall -Wextra -Werror -Wconversion -Wno-sign-conversion -ffp-contract=off -Isrc -pthread -MMD -MP

SOURCES  := $(filter-out src/cli/main.cpp src/ops/cpu/isa.cpp,$(shell find src -name '*.cpp' | sort))
TESTS    := $(sort $(wildcard tests/*.cpp))
# One binary for every processor: the CPU kernels are compiled once per instruction set and chosen at run time.
ISAS     := baseline $(if $(filter x86_64 amd64,$(shell uname -m)),avx2 avx512 avx512bf16)
ISA_FLAGS_avx2       := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512     := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512
ISA_FLAGS_avx512bf16 := $(ISA_FLAGS_avx512) -mavx512bf16

OBJECTS  := $(SOURCES:%.cpp=$(BUILD)/%.o) $(ISAS:%=$(BUILD)/src/ops/cpu/isa_%.o)

$(BUILD)/signround: $(BUILD)/src/cli/main.o $(OBJECTS)   ## the program (default)
	$(CXX) $(CXXFLAGS) $(LDFLAGS) -pthread $^ -o $@

$(BUILD)/tests: $(TESTS:%.cpp=$(BUILD)/%.o) $(OBJECTS)
	$(CXX) $(CXXFLAGS) $(LDFLAGS) -pthread $^ -o $@

$(BUILD)/src/ops/cpu/isa_%.o: src/ops/cpu/isa.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(CXXFLAGS) $(ISA_FLAGS_$*) -DSIGNROUND_ISA=$* -c $< -o $@

$(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(CXXFLAGS) -c $< -o $@

clean:                        ## removes everything built
	rm -rf $(BUILD)

help:                         ## this list
	@grep -hE '^[^ :#]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /: /' | sed 's|^$$(BUILD)/||'

.PHONY: clean help
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
