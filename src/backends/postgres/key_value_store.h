// KeyValueStore in a table of PostgreSQL, by the server's clock.
#pragma once

#include <memory>

#include "backends/postgres/client.h"
#include "capabilities/key_value_store.h"

namespace prism::postgres {

// Makes its table, prism_kv, where it is missing, with the first operation. A task in the client's scope removes what
// has expired, from the first write on.
std::shared_ptr<KeyValueStore> make_key_value_store(std::shared_ptr<Client> client);

}  // namespace prism::postgres
