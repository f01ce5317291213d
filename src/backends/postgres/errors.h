// PostgreSQL's errors as Prism's.
#pragma once

#include <string>
#include <string_view>

#include "backends/client/errors.h"

namespace prism::postgres {

// What the server, or the client library, says of a failure.
struct Failure {
  std::string sqlstate;  // empty: none, the library's own
  std::string message;
  std::string constraint, table, column;
  bool fatal = false;  // the server ends the connection with it
};

// A statement's. `guard`s of leases come as LEASE_LOST. The metadata have the sqlstate.
Error to_error(const Failure& failure, const client::Peer& peer);
// Of an attempt to connect, from the library's message, which names the SQLSTATE where the server gave one.
Error connect_error(std::string_view message, const client::Peer& peer);
// The connection broke while an operation was under way.
Error lost_error(const Failure& failure, const client::Peer& peer, Retry retry);

// The statement could be repeated in a transaction of its own: serialization failures and deadlocks.
bool is_conflict(const Error& error) noexcept;
// The server's plan or name of a prepared statement is of no more use: prepare it again.
bool is_stale_statement(const Error& error) noexcept;
bool is_missing_table(const Error& error) noexcept;

inline constexpr std::string_view kLeaseLost = "prism: the lease is lost";  // what a failing guard casts to a number

}  // namespace prism::postgres
