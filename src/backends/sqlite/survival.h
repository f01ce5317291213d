// What acknowledged writes of the engines survive that are listed here, as Prism uses them.
#pragma once

#include <string_view>

#include "capabilities/survival.h"

namespace prism::sqlite {

// `engine`: the canonical name of a backend type of this folder ("nats").
Survival survival(std::string_view engine, const Deployment& deployment);

}  // namespace prism::sqlite
