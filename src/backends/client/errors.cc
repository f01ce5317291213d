#include "backends/client/errors.h"

namespace prism::client {
namespace {

Error about(const Peer& peer, Error error, std::string_view says, std::string_view why) {
  error.message = peer.text() + " " + std::string(says);
  if (!why.empty()) error.message += ": " + std::string(why);
  return std::move(error).with("backend", peer.backend);
}

}  // namespace

std::string Peer::text() const {
  std::string out = "backend \"" + backend + "\" (" + system;
  if (!address.empty()) out += " at " + address;
  return out + ")";
}

Error unavailable(const Peer& peer, std::string_view why, Retry retry) {
  return about(peer,
               {Code::unavailable, "BACKEND_UNAVAILABLE", {}, "see that it runs and can be reached", retry, {}, {}},
               "does not answer", why);
}

Error timed_out(const Peer& peer, std::string_view why, Retry retry) {
  return about(
      peer, {Code::deadline_exceeded, "BACKEND_TIMEOUT", {}, "see why it is slow, or raise `timeouts`", retry, {}, {}},
      "took too long", why);
}

Error overloaded(const Peer& peer, std::string_view why, std::chrono::milliseconds retry_after) {
  return about(peer,
               {Code::resource_exhausted,
                "BACKEND_OVERLOADED",
                {},
                "send less at once, or enlarge `pool`",
                Retry::safe,
                retry_after,
                {}},
               "has no free connection", why);
}

Error authentication_failed(const Peer& peer, std::string_view why) {
  return about(peer,
               {Code::failed_precondition,
                "BACKEND_AUTHENTICATION_FAILED",
                {},
                "mend the credentials under `backends:`, or at the server",
                Retry::never,
                {},
                {}},
               "refuses the credentials", why);
}

Error permission_denied(const Peer& peer, std::string_view why, std::string_view hint) {
  return about(peer,
               {Code::permission_denied,
                "BACKEND_PERMISSION_DENIED",
                {},
                hint.empty() ? "grant it to the user that Prism logs in as" : std::string(hint),
                Retry::never,
                {},
                {}},
               "forbids the operation", why);
}

Error tls_failed(const Peer& peer, std::string_view why) {
  return about(peer,
               {Code::failed_precondition,
                "BACKEND_TLS_FAILED",
                {},
                "compare `tls` under `backends:` (ca_file, server_name) with the server's certificate",
                Retry::never,
                {},
                {}},
               "offers no connection that is encrypted and trusted", why);
}

Error protocol_error(const Peer& peer, std::string_view why, Retry retry) {
  return about(
      peer,
      {Code::internal, "BACKEND_PROTOCOL_ERROR", {}, "see that the address is that of the right server", retry, {}, {}},
      "sends what is not understood", why);
}

bool needs_operator(const Error& error) noexcept {
  return error.reason == "BACKEND_AUTHENTICATION_FAILED" || error.reason == "BACKEND_TLS_FAILED";
}

bool is_outage(const Error& error) noexcept {
  return error.reason == "BACKEND_UNAVAILABLE" || error.reason == "BACKEND_TIMEOUT" ||
         error.reason == "BACKEND_PROTOCOL_ERROR" || needs_operator(error);
}

}  // namespace prism::client
