// The step table of a block: the method, its memory and its arithmetic on one page.
#pragma once
#include <string>

#include "model/plan.h"

namespace signround {

// One line a step: name, shapes, what is kept, arithmetic forward and backward, which gradients exist and how they are written
// (= set, += added, - none), then the arena's map.
std::string explain(const Program& program, const Plan& plan);

}  // namespace signround
