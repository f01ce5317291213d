// Waits between tries of connectors.
#pragma once

#include "runtime/backoff.h"

namespace prism::client {

using prism::Backoff;

}  // namespace prism::client
