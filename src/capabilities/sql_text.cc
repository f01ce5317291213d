#include <fmt/format.h>

#include "capabilities/sql_database.h"

namespace prism {

std::string SqlText::quote(std::string_view identifier) {
  std::string out = "\"";
  for (const char c : identifier) {
    out += c;
    if (c == '"') out += c;
  }
  return out + "\"";
}

std::string SqlText::now() const {
  return dialect == SqlDialect::sqlite ? "prism_now()" : "(now() AT TIME ZONE 'utc')";
}

std::string SqlText::ago(std::string_view microseconds_expression) const {
  if (dialect == SqlDialect::sqlite) return fmt::format("prism_ago({})", microseconds_expression);
  return fmt::format("((now() - ({}) * interval '1 microsecond') AT TIME ZONE 'utc')", microseconds_expression);
}

std::string SqlText::age(std::string_view timestamp_expression) const {
  if (dialect == SqlDialect::sqlite) return fmt::format("prism_age({})", timestamp_expression);
  return fmt::format("(extract(epoch FROM (now() AT TIME ZONE 'utc') - ({})) * 1000000)::bigint", timestamp_expression);
}

std::string SqlText::lane(std::string_view key_expression, std::uint32_t lanes) const {
  const std::uint32_t n = lanes == 0 ? 1 : lanes;
  if (dialect == SqlDialect::sqlite) return fmt::format("prism_lane({}, {})", key_expression, n);
  // hashtext() is a signed 32-bit number; moved up first, since the remainder of a negative one is negative.
  return fmt::format("((hashtext(COALESCE(CAST({} AS text), ''))::bigint + 2147483648) % {})", key_expression, n);
}

}  // namespace prism
