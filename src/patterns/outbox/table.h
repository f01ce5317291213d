// The outbox table: its columns and the statements on it.
//
// RFC-009's columns (id, event_type, aggregate_id, payload, created_at, published_at) are the contract with
// applications that read or write the table; the others hold what a message published through Prism has besides.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "capabilities/sql_database.h"
#include "patterns/pattern.h"

namespace prism::outbox {

inline constexpr std::uint32_t kLanes = 256;  // virtual ones: rows of one ordering key are in one lane

TableSpec table_spec(const std::string& name);

// One message as a row; the payload must be inline.
Statement insert(const std::string& table, SqlDialect dialect, const Message& message);

struct Row {
  std::int64_t id = 0;
  std::string key;
  std::optional<Clock::duration> age;  // since its insertion, when it was read; none: it does not say
  Result<Message> message;             // OUTBOX_ROW_INVALID: somebody wrote a row that cannot be one
};

// Ids and sizes of the pending rows of some lanes, lowest id first; rows of these keys, with these ids, and with ids up
// to `after` are left out.
struct Skip {
  std::vector<std::string> keys;
  std::vector<std::int64_t> ids;
  std::int64_t after = 0;
};
Statement select_pending(const std::string& table, SqlDialect dialect, std::uint32_t first_lane,
                         std::uint32_t last_lane, std::uint32_t rows, const Skip& skip);
// Ids, sizes and keys of pending rows: the lowest of each of these keys, and those with these ids.
Statement select_again(const std::string& table, SqlDialect dialect, const std::vector<std::string>& keys,
                       const std::vector<std::int64_t>& ids);
// Those of the keys that have a pending row up to this id.
Statement select_keys_up_to(const std::string& table, std::int64_t id, const std::vector<std::string>& keys);
Statement select_rows(const std::string& table, SqlDialect dialect, const std::vector<std::int64_t>& ids);
Row read_row(std::vector<SqlValue>& row, const std::string& default_topic);

Statement mark_published(const std::string& table, SqlDialect dialect, const std::vector<std::int64_t>& ids);
Statement remove(const std::string& table, const std::vector<std::int64_t>& ids);
// At most `rows` rows that were published more than `age` ago.
Statement remove_published(const std::string& table, SqlDialect dialect, Clock::duration age, std::uint32_t rows);
// One row: pending rows, microseconds since the insertion of the one with the lowest id (NULL: there is none, or it
// does not say).
Statement select_waiting(const std::string& table, SqlDialect dialect);
Statement select_claim_check_ids(const std::string& table);
// One row: rows, pending rows, pending bytes of bodies.
Statement select_totals(const std::string& table);
// The row inserted last: id, topic, message_id, claim_check_id, payload_size, bytes of the body, published_at.
Statement select_newest(const std::string& table);

// Headers as JSON: [["name","value"],...]; a value that is not UTF-8 is {"base64":"..."}.
std::string headers_to_json(const Headers& headers);
Result<Headers> headers_from_json(std::string_view json);

}  // namespace prism::outbox
