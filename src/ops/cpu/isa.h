// Every kernel header lives in namespace signround::SIGNROUND_ISA: isa.cpp is compiled once an instruction set, names keep
// the copies apart. For the same reason the kernels call nothing that the compiler might emit out of line under a shared name.
#pragma once
#ifndef SIGNROUND_ISA
#define SIGNROUND_ISA baseline
#endif
