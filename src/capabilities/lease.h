// Lease: one holder at a time, with a fencing number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/types.h"
#include "capabilities/sql_database.h"
#include "runtime/context.h"
#include "runtime/task.h"

namespace prism {

struct Grant {
  std::string name;
  std::string holder;
  std::uint64_t fence = 0;         // greater for every later holder
  Clock::time_point safe_until{};  // counted from before the request: by then the holder must have renewed or stopped
};

// A lease is for efficiency: a stopped process may go on after its lease was given away, so each user of one names what
// makes a second runner harmless. Any thread; any number of calls at once.
class Lease {
 public:
  virtual ~Lease() = default;
  // None: somebody else holds it. The same holder may acquire again (same fence).
  virtual Task<Result<std::optional<Grant>>> acquire(Context context, std::string name, std::string holder,
                                                     Clock::duration ttl) = 0;
  virtual Task<Result<Grant>> renew(Context context, Grant grant, Clock::duration ttl) = 0;  // LEASE_LOST
  virtual Task<void> release(Context context, Grant grant) = 0;
  // SQL leases: a statement that, run inside a transaction of the same database, fails it unless the grant still holds.
  virtual std::optional<Statement> guard(const Grant& grant) const = 0;
};

}  // namespace prism
