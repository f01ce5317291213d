// What the pattern promises and runs, told before there is a namespace (PatternInfo::shape and jobs).
#pragma once

#include <vector>

#include "config/document.h"
#include "patterns/guarantees.h"
#include "patterns/pattern.h"

namespace prism::claim_check {

void shape(const Shaping& by, Guarantees& guarantees);
std::vector<PlannedJob> jobs(const config::Node& options);

}  // namespace prism::claim_check
