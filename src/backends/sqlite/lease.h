// Lease on an Engine: one row a lease, for all processes that have the file open.
#pragma once

#include <memory>

#include "backends/sqlite/engine.h"
#include "capabilities/lease.h"

namespace prism::sqlite {

// Makes its table where it is missing. Leases end by the machine's wall clock, which all processes on the file share.
// Guards work in transactions of a SqlDatabase on the same engine or the same file.
Task<Result<std::shared_ptr<Lease>>> open_lease(Context context, std::shared_ptr<Engine> engine);

}  // namespace prism::sqlite
