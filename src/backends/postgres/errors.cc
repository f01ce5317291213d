#include "backends/postgres/errors.h"

#include <algorithm>
#include <array>

namespace prism::postgres {
namespace {

// A row is chosen by the longest prefix of the SQLSTATE; see https://www.postgresql.org/docs/15/errcodes-appendix.html
struct Row {
  std::string_view state;
  Code code;
  const char* reason;
  const char* hint;
  Retry retry;
};

// What an error of the same class is called where no row names it.
constexpr auto kRows = std::to_array<Row>({
    {"08P01", Code::invalid_argument, "SQL_INVALID_PARAMETER", "", Retry::never},
    {"22", Code::invalid_argument, "SQL_INVALID_PARAMETER", "", Retry::never},
    {"22001", Code::failed_precondition, "CONSTRAINT_VIOLATED", "", Retry::never},
    {"22012", Code::invalid_argument, "SQL_ERROR", "", Retry::never},
    {"23", Code::failed_precondition, "CONSTRAINT_VIOLATED", "", Retry::never},
    {"23505", Code::already_exists, "CONSTRAINT_VIOLATED", "", Retry::never},
    {"25006", Code::failed_precondition, "SQL_READ_ONLY",
     "begin a transaction that may write; or connect to the primary", Retry::never},
    {"25P02", Code::failed_precondition, "TRANSACTION_FAILED", "begin another one", Retry::never},
    {"25P03", Code::aborted, "TRANSACTION_EXPIRED", "finish transactions sooner, or ask for a longer time",
     Retry::safe},
    {"40", Code::aborted, "TRANSACTION_CONFLICT", "repeat the transaction", Retry::safe},
    {"40003", Code::unknown, "OUTCOME_UNKNOWN", "read back what was written", Retry::unknown_outcome},
    {"42", Code::invalid_argument, "SQL_ERROR", "", Retry::never},
    {"42P07", Code::already_exists, "TABLE_EXISTS", "", Retry::never},
    {"42P18", Code::invalid_argument, "SQL_ERROR", "write CAST($1 AS type)", Retry::never},
    {"53100", Code::resource_exhausted, "DISK_FULL", "free space at the server", Retry::safe},
    {"53200", Code::resource_exhausted, "OUT_OF_MEMORY", "", Retry::safe},
    {"53", Code::resource_exhausted, "OUT_OF_MEMORY", "see the server's limits", Retry::safe},
    {"54", Code::invalid_argument, "SQL_ERROR", "", Retry::never},
    {"55P03", Code::aborted, "LOCK_TIMEOUT", "end the transaction that holds the lock, or raise `lock_timeout`",
     Retry::safe},
    {"57014", Code::deadline_exceeded, "SQL_TOO_SLOW", "make it touch fewer rows, or add an index; or raise `timeouts`",
     Retry::safe},
    {"58", Code::resource_exhausted, "DISK_IO_ERROR", "check the server's volume", Retry::safe},
    {"XX001", Code::data_loss, "DATABASE_CORRUPT", "restore the server's data from a backup", Retry::never},
    {"XX002", Code::data_loss, "DATABASE_CORRUPT", "REINDEX what the message names", Retry::never},
    {"XX", Code::internal, "DATABASE_ERROR", "see the server's log", Retry::never},
});

const Row* row_of(std::string_view state) noexcept {
  const Row* best = nullptr;
  for (const auto& row : kRows) {
    if (state.starts_with(row.state) && (best == nullptr || best->state.size() < row.state.size())) best = &row;
  }
  return best;
}

std::string_view constraint_of(const Failure& failure) noexcept {
  const std::string_view state = failure.sqlstate;
  if (state == "23505") return failure.constraint.ends_with("_pkey") ? "primary_key" : "unique";
  if (state == "23502") return "not_null";
  if (state == "23503" || state == "23001") return "foreign_key";
  if (state == "23514") return "check";
  if (state == "23P01") return "exclusion";
  return state == "22001" ? "type" : "other";
}

bool away(std::string_view state) noexcept {
  return state.starts_with("08") || state == "57P01" || state == "57P02" || state == "57P03" || state == "57P05";
}

bool has(std::string_view text, std::string_view part) noexcept { return text.find(part) != std::string_view::npos; }

}  // namespace

Error to_error(const Failure& failure, const client::Peer& peer) {
  const std::string_view state = failure.sqlstate;
  const auto noted = [&](Error error) {
    if (!state.empty()) error.metadata.insert_or_assign("sqlstate", failure.sqlstate);
    return error;
  };
  if (state == "22P02" && has(failure.message, kLeaseLost)) {
    return {Code::aborted, "LEASE_LOST", "the lease is not this holder's any more", {}, Retry::safe, {}, {}};
  }
  if (state.empty() || (away(state) && state != "08P01")) return noted(client::unavailable(peer, failure.message));
  if (state.starts_with("28")) return noted(client::authentication_failed(peer, failure.message));
  if (state == "42501") return noted(client::permission_denied(peer, failure.message));
  if (state == "53300") return noted(client::unavailable(peer, failure.message));
  const Row* const row = row_of(state);
  Error error = row == nullptr ? Error{Code::invalid_argument, "SQL_ERROR", failure.message, {}, Retry::never, {}, {}}
                               : Error{row->code, row->reason, failure.message, row->hint, row->retry, {}, {}};
  if (error.reason == "CONSTRAINT_VIOLATED") {
    error.metadata.emplace("constraint", constraint_of(failure));
    if (!failure.constraint.empty()) error.metadata.emplace("constraint_name", failure.constraint);
    if (!failure.table.empty()) error.metadata.emplace("table", failure.table);
    if (!failure.column.empty()) error.metadata.emplace("column", failure.column);
  }
  return noted(std::move(error));
}

Error connect_error(std::string_view message, const client::Peer& peer) {
  // With the verbose form of messages: "... FATAL:  28P01: password authentication failed for user ...".
  std::string text;
  std::string state;
  for (std::size_t at = message.find(":  "); at != std::string_view::npos; at = message.find(":  ", at + 1)) {
    const std::string_view rest = message.substr(at + 3);
    if (rest.size() < 7 || rest.substr(5, 2) != ": ") continue;
    if (!std::ranges::all_of(rest.substr(0, 5),
                             [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); }))
      continue;
    state = rest.substr(0, 5);
    message = rest.substr(7);
    break;
  }
  for (const char c : message.substr(0, message.find("\nLOCATION:"))) text += c == '\n' || c == '\t' ? ' ' : c;
  while (text.ends_with(' ')) text.pop_back();

  const auto noted = [&](Error error) {
    return state.empty() ? std::move(error) : std::move(error).with("sqlstate", state);
  };
  if (state.starts_with("28")) {
    // Without an entry for unencrypted connections in pg_hba.conf: it is the encryption that is missing.
    if (state == "28000" && has(text, "no encryption")) return noted(client::tls_failed(peer, text));
    return noted(client::authentication_failed(peer, text));
  }
  if (state.empty() && (has(text, "no password supplied") || has(text, "SASL") || has(text, "SCRAM")))
    return client::authentication_failed(peer, text);
  if (state.empty() && (has(text, "SSL") || has(text, "certificate") || has(text, "private key")))
    return client::tls_failed(peer, text);
  if (state == "3D000") {
    return noted({Code::failed_precondition,
                  "DATABASE_NOT_FOUND",
                  peer.text() + ": " + text,
                  "make it, or mend `database`",
                  Retry::never,
                  {},
                  {{"backend", peer.backend}}});
  }
  if (state == "42501") return noted(client::permission_denied(peer, text));
  return noted(client::unavailable(peer, text));
}

Error lost_error(const Failure& failure, const client::Peer& peer, Retry retry) {
  Error error = client::unavailable(peer, failure.message, retry);
  if (!failure.sqlstate.empty()) error.metadata.insert_or_assign("sqlstate", failure.sqlstate);
  return error;
}

namespace {
std::string_view state_of(const Error& error) noexcept {
  const auto it = error.metadata.find("sqlstate");
  return it == error.metadata.end() ? std::string_view() : std::string_view(it->second);
}
}  // namespace

bool is_conflict(const Error& error) noexcept { return error.reason == "TRANSACTION_CONFLICT"; }

bool is_stale_statement(const Error& error) noexcept {
  const auto state = state_of(error);
  return state == "26000" || (state == "0A000" && has(error.message, "cached plan"));
}

bool is_missing_table(const Error& error) noexcept { return state_of(error) == "42P01"; }

}  // namespace prism::postgres
