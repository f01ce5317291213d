// Lease in a table of PostgreSQL, by the server's clock.
#pragma once

#include <memory>

#include "backends/postgres/client.h"
#include "capabilities/lease.h"

namespace prism::postgres {

// Makes its table, prism_lease, where it is missing, with the first operation.
std::shared_ptr<Lease> make_lease(std::shared_ptr<Client> client);

}  // namespace prism::postgres
