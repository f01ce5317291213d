#include "patterns/outbox/table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/base64.h"

namespace prism::outbox {
namespace {

std::string q(const std::string& identifier) { return SqlText::quote(identifier); }

// "$1, $2, ..." for values, padded to the next power of two by repeating the last one, so that few statements are
// prepared.
template <class T>
std::string placeholders(const std::vector<T>& values, std::vector<SqlValue>& bind) {
  std::size_t n = 1;
  while (n < values.size()) n *= 2;
  std::string text;
  text.reserve(n * 6);
  bind.reserve(bind.size() + n);
  for (std::size_t i = 0; i < n; ++i) {
    bind.emplace_back(values[std::min(i, values.size() - 1)]);
    text += (i == 0 ? "$" : ", $") + std::to_string(bind.size());
  }
  return text;
}

std::string text_of(const SqlValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  return {};
}

// What a row takes in memory, about. SQLite 3.40 has no octet_length; length() of a blob counts bytes, of text
// characters, which is near enough for a limit.
std::string size_of_row(SqlDialect dialect) {
  const std::string length = dialect == SqlDialect::sqlite ? "length" : "octet_length";
  const std::string text = dialect == SqlDialect::sqlite ? "" : "::text";
  return "coalesce(" + length + "(body), 0) + coalesce(" + length + "(headers" + text + "), 0)";
}

SqlValue or_null(std::string text) {
  if (text.empty()) return SqlNull{};
  return text;
}

}  // namespace

TableSpec table_spec(const std::string& name) {
  return {
      .name = name,
      .columns = {{"id", ColumnType::id, true},
                  {"event_type", ColumnType::text},
                  {"aggregate_id", ColumnType::text},
                  {"payload", ColumnType::json},
                  {"created_at", ColumnType::timestamp, true, true},
                  {"published_at", ColumnType::timestamp},
                  {"topic", ColumnType::text},
                  {"message_id", ColumnType::text},
                  {"headers", ColumnType::json},
                  {"attributes", ColumnType::json},
                  {"body", ColumnType::bytes},
                  {"claim_check_id", ColumnType::text},
                  {"payload_size", ColumnType::integer}},
      .indexes = {{.name = name + "_unpublished", .columns = {"published_at", "id"}, .where_null = "published_at"}},
  };
}

Statement insert(const std::string& table, SqlDialect /*dialect*/, const Message& message) {
  Statement s;
  s.text = "INSERT INTO " + q(table) +
           " (event_type, aggregate_id, topic, message_id, headers, attributes, body, claim_check_id, payload_size) "
           "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
  nlohmann::json attributes = nlohmann::json::object();
  for (const auto& [name, value] : message.attributes) attributes[name] = value;
  std::string type = message.topic;
  for (const auto& [name, value] : message.headers) {
    if (name == "event_type") type = value.str();
  }
  const auto* id = message.attribute("claim_check_id");
  const auto* size = message.attribute("payload_size");
  s.bind.reserve(9);
  s.bind.emplace_back(std::move(type));
  s.bind.push_back(or_null(message.key));
  s.bind.emplace_back(message.topic);
  s.bind.emplace_back(message.id);
  s.bind.push_back(message.headers.empty() ? SqlValue(SqlNull{}) : SqlValue(headers_to_json(message.headers)));
  s.bind.push_back(message.attributes.empty() ? SqlValue(SqlNull{}) : SqlValue(attributes.dump()));
  s.bind.emplace_back(message.payload.buffered());
  s.bind.push_back(id != nullptr ? SqlValue(*id) : SqlValue(SqlNull{}));
  s.bind.emplace_back(size != nullptr ? static_cast<std::int64_t>(std::strtoll(size->c_str(), nullptr, 10))
                                      : static_cast<std::int64_t>(message.payload.buffered().size()));
  return s;
}

Statement select_pending(const std::string& table, SqlDialect dialect, std::uint32_t first_lane,
                         std::uint32_t last_lane, std::uint32_t rows, const Skip& skip) {
  Statement s;
  s.text = "SELECT id, " + size_of_row(dialect) + " FROM " + q(table) + " WHERE published_at IS NULL";
  if (first_lane != 0 || last_lane != kLanes - 1) {
    s.text += " AND " + SqlText{dialect}.lane("aggregate_id", kLanes) + " BETWEEN $1 AND $2";
    s.bind.emplace_back(static_cast<std::int64_t>(first_lane));
    s.bind.emplace_back(static_cast<std::int64_t>(last_lane));
  }
  if (!skip.keys.empty()) s.text += " AND coalesce(aggregate_id, '') NOT IN (" + placeholders(skip.keys, s.bind) + ")";
  if (!skip.ids.empty()) s.text += " AND id NOT IN (" + placeholders(skip.ids, s.bind) + ")";
  if (skip.after > 0) {
    s.bind.emplace_back(skip.after);
    s.text += " AND id > $" + std::to_string(s.bind.size());
  }
  s.bind.emplace_back(static_cast<std::int64_t>(rows));
  s.text += " ORDER BY id LIMIT $" + std::to_string(s.bind.size());
  return s;
}

Statement select_again(const std::string& table, SqlDialect dialect, const std::vector<std::string>& keys,
                       const std::vector<std::int64_t>& ids) {
  Statement s;
  s.text = "SELECT id, " + size_of_row(dialect) + ", coalesce(aggregate_id, '') FROM " + q(table) +
           " WHERE published_at IS NULL AND (1 = 0";
  if (!ids.empty()) s.text += " OR id IN (" + placeholders(ids, s.bind) + ")";
  if (!keys.empty()) {
    s.text += " OR id IN (SELECT min(id) FROM " + q(table) + " WHERE published_at IS NULL AND aggregate_id IN (" +
              placeholders(keys, s.bind) + ") GROUP BY aggregate_id)";
  }
  s.text += ") ORDER BY id";
  return s;
}

Statement select_keys_up_to(const std::string& table, std::int64_t id, const std::vector<std::string>& keys) {
  Statement s;
  s.bind.emplace_back(id);
  s.text = "SELECT DISTINCT aggregate_id FROM " + q(table) +
           " WHERE published_at IS NULL AND id <= $1 AND aggregate_id IN (";
  s.text += placeholders(keys, s.bind) + ")";
  return s;
}

Statement select_rows(const std::string& table, SqlDialect dialect, const std::vector<std::int64_t>& ids) {
  Statement s;
  s.text = "SELECT id, topic, message_id, aggregate_id, headers, attributes, body, " +
           SqlText{dialect}.age("created_at") + " FROM " + q(table) + " WHERE published_at IS NULL AND id IN (";
  s.text += placeholders(ids, s.bind) + ") ORDER BY id";
  return s;
}

namespace {

Result<Message> read_message(std::vector<SqlValue>& columns, const std::string& default_topic) {
  Message m;
  m.topic = default_topic.empty() ? text_of(columns[1]) : default_topic;
  m.id = text_of(columns[2]);
  m.key = text_of(columns[3]);
  if (m.topic.empty() || m.id.empty())
    return fail(Code::data_loss, "OUTBOX_ROW_INVALID", "columns topic and message_id must not be empty");
  if (const auto* json = std::get_if<std::string>(&columns[4])) {
    PRISM_TRY(m.headers, headers_from_json(*json));
  }
  if (const auto* json = std::get_if<std::string>(&columns[5])) {
    const auto attributes = nlohmann::json::parse(*json, nullptr, false);
    if (!attributes.is_object())
      return fail(Code::data_loss, "OUTBOX_ROW_INVALID", "column attributes holds no JSON object");
    for (const auto& [name, value] : attributes.items())
      m.attributes.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  if (auto* body = std::get_if<Bytes>(&columns[6])) m.payload = Payload(std::move(*body));
  return m;
}

}  // namespace

Row read_row(std::vector<SqlValue>& columns, const std::string& default_topic) {
  Row row{.id = std::get<std::int64_t>(columns[0]), .key = text_of(columns[3]), .age = {}, .message = {}};
  if (const auto* age = std::get_if<std::int64_t>(&columns[7]))
    row.age = std::chrono::microseconds(std::max<std::int64_t>(0, *age));
  row.message = read_message(columns, default_topic);
  return row;
}

Statement mark_published(const std::string& table, SqlDialect dialect, const std::vector<std::int64_t>& ids) {
  Statement s;
  s.text = "UPDATE " + q(table) + " SET published_at = " + SqlText{dialect}.now() +
           " WHERE published_at IS NULL AND id IN (";
  s.text += placeholders(ids, s.bind) + ")";
  return s;
}

Statement remove(const std::string& table, const std::vector<std::int64_t>& ids) {
  Statement s;
  s.text = "DELETE FROM " + q(table) + " WHERE id IN (";
  s.text += placeholders(ids, s.bind) + ")";
  return s;
}

Statement remove_published(const std::string& table, SqlDialect dialect, Clock::duration age, std::uint32_t rows) {
  Statement s;
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(age).count();
  // The oldest rows have the smallest ids: the walk by primary key finds them first.
  s.text = "DELETE FROM " + q(table) + " WHERE id IN (SELECT id FROM " + q(table) +
           " WHERE published_at IS NOT NULL AND published_at < " + SqlText{dialect}.ago("$1") +
           " ORDER BY id LIMIT $2)";
  s.bind = {static_cast<std::int64_t>(us), static_cast<std::int64_t>(rows)};
  return s;
}

Statement select_waiting(const std::string& table, SqlDialect dialect) {
  return {"SELECT (SELECT count(*) FROM " + q(table) + " WHERE published_at IS NULL), (SELECT " +
              SqlText{dialect}.age("created_at") + " FROM " + q(table) +
              " WHERE published_at IS NULL ORDER BY id LIMIT 1)",
          {}};
}

Statement select_claim_check_ids(const std::string& table) {
  return {"SELECT claim_check_id FROM " + q(table) + " WHERE published_at IS NULL AND claim_check_id IS NOT NULL", {}};
}

Statement select_totals(const std::string& table) {
  return {
      "SELECT count(*), count(*) FILTER (WHERE published_at IS NULL), "
      "coalesce(sum(length(body)) FILTER (WHERE published_at IS NULL), 0) FROM " +
          q(table),
      {}};
}

Statement select_newest(const std::string& table) {
  return {"SELECT id, topic, message_id, claim_check_id, payload_size, length(body), published_at FROM " + q(table) +
              " ORDER BY id DESC LIMIT 1",
          {}};
}

std::string headers_to_json(const Headers& headers) {
  nlohmann::json list = nlohmann::json::array();
  const auto add = [&list](const std::string& name, const Bytes& value, bool encoded) {
    if (encoded) {
      list.push_back({name, nlohmann::json{{"base64", base64_encode(value.view())}}});
    } else {
      list.push_back({name, value.view()});
    }
  };
  // JSONB has no place for a zero character.
  const auto has_zero = [](const Bytes& value) { return value.view().find('\0') != std::string_view::npos; };
  for (const auto& [name, value] : headers) add(name, value, has_zero(value));
  try {
    return list.dump();
  } catch (const nlohmann::json::type_error&) {  // some value is not UTF-8
    list = nlohmann::json::array();
    for (const auto& [name, value] : headers) {
      nlohmann::json text = value.view();
      bool encoded = has_zero(value);
      try {
        (void)text.dump();
      } catch (const nlohmann::json::type_error&) {
        encoded = true;
      }
      add(name, value, encoded);
    }
    return list.dump();
  }
}

Result<Headers> headers_from_json(std::string_view json) {
  const auto bad = [] {
    return fail(Code::data_loss, "OUTBOX_ROW_INVALID", "column headers is not a JSON list of [name, value] pairs");
  };
  const auto list = nlohmann::json::parse(json, nullptr, false);
  if (!list.is_array()) return bad();
  Headers headers;
  for (const auto& pair : list) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string()) return bad();
    if (pair[1].is_string()) {
      headers.emplace_back(pair[0].get<std::string>(), Bytes(pair[1].get<std::string>()));
      continue;
    }
    if (!pair[1].is_object() || !pair[1].contains("base64") || !pair[1]["base64"].is_string()) return bad();
    auto bytes = base64_decode(pair[1]["base64"].get<std::string>());
    if (!bytes) return bad();
    headers.emplace_back(pair[0].get<std::string>(), Bytes(std::move(*bytes)));
  }
  return headers;
}

}  // namespace prism::outbox
