// Errors that the connectors of real servers give alike. Reasons and codes are in docs/reference/errors.md.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/error.h"

namespace prism::client {

// Who is spoken to, as errors name it. Never holds a credential.
struct Peer {
  std::string backend;       // the name in the file: "orders-db"
  std::string system;        // "PostgreSQL"
  std::string address;       // "db.example.com:5432"; several with ", "
  std::string text() const;  // `backend "orders-db" (PostgreSQL at db.example.com:5432)`
};

// `why` reads on after a colon, in the server's or the system's words, and holds no credential. `retry`:
// unknown_outcome where a write had been sent.
//
// The server does not answer, or the connection broke: UNAVAILABLE.
Error unavailable(const Peer& peer, std::string_view why, Retry retry = Retry::safe);
// It did not answer in the time that the options give it (a context that is over is Context::over): DEADLINE_EXCEEDED.
Error timed_out(const Peer& peer, std::string_view why, Retry retry);
// No room in the queue for connections: RESOURCE_EXHAUSTED, nothing was sent.
Error overloaded(const Peer& peer, std::string_view why, std::chrono::milliseconds retry_after);
// It does not know us, or not this password: FAILED_PRECONDITION (it is not the client's to mend).
Error authentication_failed(const Peer& peer, std::string_view why);
// It knows us and forbids this: PERMISSION_DENIED. `hint`: the grant that is missing; empty: a general one.
Error permission_denied(const Peer& peer, std::string_view why, std::string_view hint = {});
// No trust in its certificate, or it has none in ours, or no common version: FAILED_PRECONDITION.
Error tls_failed(const Peer& peer, std::string_view why);
// What it sends is not understood; the connection is of no more use: INTERNAL.
Error protocol_error(const Peer& peer, std::string_view why, Retry retry);

// Does this error say that the server cannot be used now, whatever is asked for? Such errors count against a breaker,
// and make a backend be shown as down.
bool is_outage(const Error& error) noexcept;
// Of these: will it stay so until somebody changes a setting? Repeating at once is of no use.
bool needs_operator(const Error& error) noexcept;

}  // namespace prism::client
