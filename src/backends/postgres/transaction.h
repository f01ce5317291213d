// An interactive transaction on a connection of its own.
#pragma once

#include <memory>

#include "backends/postgres/client.h"
#include "capabilities/sql_database.h"

namespace prism::postgres {

// BEGIN goes out with the first statements. On the client's loop.
std::unique_ptr<SqlTransaction> make_transaction(std::shared_ptr<Client> client, Held held, TxOptions options);

}  // namespace prism::postgres
