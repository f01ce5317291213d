#include "patterns/outbox/options.h"

#include "config/schema.h"

namespace prism::outbox {
namespace {

using namespace config;

enum class Mode : std::uint8_t { polling, cdc };

struct Database {
  std::string backend;
};
struct Destination {
  std::string backend;
  std::string topic;
  std::optional<Node> topic_pattern;
};
struct Cleanup {
  CleanupStrategy strategy = CleanupStrategy::remove;
  std::optional<Lifetime> retention;
};
struct PublisherEntry {
  Mode mode = Mode::polling;
  Clock::duration interval{};
  std::uint32_t batch_size = 0;
  Destination destination;
  Cleanup cleanup;
};
struct EntryOptions {
  Database database;
  std::string table;
  std::optional<Node> schema;
  PublisherEntry publisher;
};

const Schema<Database>& database_schema() {
  static const auto schema =
      Schema<Database>("database", "Where the outbox table stands.")
          .field(&Database::backend, "backend", Name(), "The database, by its name under `backends:`.")
          .default_("postgres");
  return schema;
}
const Schema<Destination>& destination_schema() {
  static const auto schema =
      Schema<Destination>("destination", "Where the relay publishes.")
          .field(&Destination::backend, "backend", Text{.allow_empty = true},
                 "The log, by its name under `backends:`; without it the namespace's.")
          .default_("\"\"")
          .field(&Destination::topic, "topic", Text{.allow_empty = true},
                 "One topic for everything; without it the topic that the client named.")
          .default_("\"\"")
          .field(&Destination::topic_pattern, "topic_pattern", Any{}, "A topic made of columns of the row.");
  return schema;
}
const Schema<Cleanup>& cleanup_schema() {
  static const auto schema =
      Schema<Cleanup>("cleanup", "What becomes of published rows.")
          .field(&Cleanup::strategy, "strategy",
                 Enum<CleanupStrategy>{
                     {{"delete", CleanupStrategy::remove}, {"mark_published", CleanupStrategy::mark_published}}},
                 "delete: rows are removed; mark_published: rows are kept and published_at is set.")
          .default_("delete")
          .field(&Cleanup::retention, "retention", DurationOrInfinite{.min = std::chrono::seconds(1)},
                 "Published rows are removed after this time. Without it `delete` removes at once and `mark_published` "
                 "keeps for ever.");
  return schema;
}
const Schema<PublisherEntry>& publisher_schema() {
  static const auto schema =
      Schema<PublisherEntry>("publisher", "The relay from the table to the log.")
          .field(&PublisherEntry::mode, "mode", Enum<Mode>{{{"polling", Mode::polling}, {"cdc", Mode::cdc}}},
                 "How rows are found.")
          .default_("polling")
          .field(&PublisherEntry::interval, "interval",
                 Duration{.min = std::chrono::milliseconds(1), .max = std::chrono::hours(1)},
                 "A row is seen at the latest this long after its commit.")
          .default_("100ms")
          .field(&PublisherEntry::batch_size, "batch_size", Int{.min = 1, .max = 10'000}, "Rows of one round.")
          .default_("1000")
          .field(&PublisherEntry::destination, "destination", Nested{destination_schema()},
                 "Where the relay publishes.")
          .field(&PublisherEntry::cleanup, "cleanup", Nested{cleanup_schema()}, "What becomes of published rows.");
  return schema;
}
const Schema<EntryOptions>& schema() {
  static const auto result =
      Schema<EntryOptions>("outbox", "Commits each message as a database row and relays it to the log.")
          .field(&EntryOptions::database, "database", Nested{database_schema()}.shorthand("backend"),
                 "Where the outbox table stands.")
          .field(&EntryOptions::table, "table",
                 Text{.pattern = "[A-Za-z_][A-Za-z0-9_]{0,62}",
                      .expects = "an SQL identifier of at most 63 letters, digits and _"},
                 "The table; it is made when it is missing.")
          .default_("outbox")
          .field(&EntryOptions::schema, "schema", Any{}, "DDL of the table.")
          .field(&EntryOptions::publisher, "publisher", Nested{publisher_schema()},
                 "The relay from the table to the log.");
  return result;
}

}  // namespace

std::shared_ptr<const SchemaInfo> options_info() { return schema().shared_info(); }

Options read_options(const Node& entry, Diagnostics& diagnostics) {
  Options options;
  const auto parsed = schema().parse(entry, diagnostics);
  if (!parsed) return options;
  const auto refuse = [&](const std::optional<Node>& node, const std::string& name) {
    if (!node) return;
    diagnostics.error(*node, "OPTION_NOT_AVAILABLE", "option " + name + " is not available in this version of Prism",
                      "leave it out");
  };
  refuse(parsed->schema, "schema");
  refuse(parsed->publisher.destination.topic_pattern, "publisher.destination.topic_pattern");
  if (parsed->publisher.mode == Mode::cdc) {
    diagnostics.error(entry, "OPTION_NOT_AVAILABLE", "publisher.mode cdc is not available in this version of Prism",
                      "use mode: polling");
  }
  options.database = parsed->database.backend;
  options.table = parsed->table;
  options.destination_backend = parsed->publisher.destination.backend;
  options.destination_topic = parsed->publisher.destination.topic;
  options.interval = parsed->publisher.interval;
  options.batch_size = parsed->publisher.batch_size;
  options.strategy = parsed->publisher.cleanup.strategy;
  if (parsed->publisher.cleanup.retention && *parsed->publisher.cleanup.retention) {
    options.retention = **parsed->publisher.cleanup.retention;
  }
  return options;
}

}  // namespace prism::outbox
