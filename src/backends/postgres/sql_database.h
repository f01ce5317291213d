// SqlDatabase on PostgreSQL.
#pragma once

#include <memory>

#include "backends/postgres/client.h"
#include "capabilities/sql_database.h"

namespace prism::postgres {

// The client is shared with the other capabilities of the backend; whoever made it closes it.
std::shared_ptr<SqlDatabase> make_sql_database(std::shared_ptr<Client> client);

}  // namespace prism::postgres
