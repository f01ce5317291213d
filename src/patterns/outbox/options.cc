#include "patterns/outbox/options.h"

#include "config/schema.h"
#include "config/template.h"
#include "config/units.h"

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
  std::optional<Template> topic_pattern;
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
  std::optional<std::string> schema;
  PublisherEntry publisher;
};

// A bare number is seconds; who writes 100 for this most likely thinks of milliseconds.
void check_bare_number(const Node* node, Clock::duration value, Diagnostics& diagnostics) {
  constexpr auto kLong = std::chrono::seconds(10);
  if (node == nullptr || node->substituted() || value < kLong) return;
  if (node->text().find_first_not_of("0123456789") != std::string::npos) return;
  diagnostics.warning(*node, "BARE_NUMBER_IS_SECONDS",
                      "this is " + format_duration(value) + ": a number without a unit is seconds",
                      "write " + node->text() + "ms or " + node->text() + "s");
}

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
          .field(&Destination::backend, "backend", Name(),
                 "The log, by its name under `backends:`; without it the namespace's.")
          .example("kafka")
          .field(&Destination::topic, "topic", Name(),
                 "One topic for everything; without it the topic that the client named.")
          .field(&Destination::topic_pattern, "topic_pattern",
                 TemplateText{.fields = {"event_type", "aggregate_id", "topic"},
                              .literal = "[A-Za-z0-9._-]*",
                              .expects = "letters, digits, '.', '_' and '-'"},
                 "A topic made of columns of the row.")
          .example("\"{event_type}\"")
          .available({})
          .check({"topic", "topic_pattern"},
                 [](const Destination& destination, const Node& map, Diagnostics& diagnostics) {
                   if (!destination.topic.empty() && destination.topic_pattern) {
                     diagnostics.error(*map.find("topic_pattern"), "CONTRADICTING_OPTIONS",
                                       "topic and topic_pattern each say where everything goes", "keep one of them");
                   }
                 });
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
                 "keeps for ever.")
          .example("1 day")
          .check({"strategy", "retention"}, [](const Cleanup& cleanup, const Node& map, Diagnostics& diagnostics) {
            const bool kept = cleanup.retention ? !cleanup.retention->has_value()
                                                : cleanup.strategy == CleanupStrategy::mark_published;
            const Node* const at = map.find(cleanup.retention ? "retention" : "strategy");
            if (!kept || at == nullptr) return;
            diagnostics.warning(*at, "ROWS_NEVER_DELETED", "published rows stay in the table for ever",
                                "give a retention such as 7 days");
          });
  return schema;
}
const Schema<PublisherEntry>& publisher_schema() {
  static const auto schema =
      Schema<PublisherEntry>("publisher", "The relay from the table to the log.")
          .field(&PublisherEntry::mode, "mode", Enum<Mode>{{{"polling", Mode::polling}, {"cdc", Mode::cdc}}},
                 "How rows are found.")
          .default_("polling")
          .available({"polling"})
          .field(&PublisherEntry::interval, "interval",
                 Duration{.min = std::chrono::milliseconds(1), .max = std::chrono::hours(1)},
                 "A row is seen at the latest this long after its commit.")
          .default_("100ms")
          .field(&PublisherEntry::batch_size, "batch_size", Int{.min = 1, .max = 10'000}, "Rows of one round.")
          .default_("1000")
          .field(&PublisherEntry::destination, "destination", Nested{destination_schema()},
                 "Where the relay publishes.")
          .field(&PublisherEntry::cleanup, "cleanup", Nested{cleanup_schema()}.shorthand("strategy"),
                 "What becomes of published rows.")
          .check({"interval"}, [](const PublisherEntry& publisher, const Node& map, Diagnostics& diagnostics) {
            check_bare_number(map.find("interval"), publisher.interval, diagnostics);
          });
  return schema;
}
const Schema<EntryOptions>& schema() {
  static const auto result =
      Schema<EntryOptions>("outbox", "Commits each message as a database row and relays it to the log.")
          .field(&EntryOptions::database, "database", Nested{database_schema()}.shorthand("backend"),
                 "Where the outbox table stands.")
          .field(&EntryOptions::table, "table", SqlIdentifier{}, "The table; it is made when it is missing.")
          .default_("outbox")
          .field(&EntryOptions::schema, "schema", Text{.expects = "DDL: CREATE TABLE ..."}, "DDL of the table.")
          .available({})
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

void review_options(const Node& entry, const Surroundings& around, Diagnostics& diagnostics) {
  const Node* const publisher = entry.find("publisher");
  const Node* const destination = publisher != nullptr ? publisher->find("destination") : nullptr;
  if (destination == nullptr) return;
  if (const Node* topic = destination->find("topic"); topic != nullptr) {
    const bool other = !around.topic.empty() && around.topic != topic->text();
    if (other || !around.topic_prefix.empty()) {
      diagnostics.error(*topic, "CONTRADICTING_OPTIONS",
                        "everything goes to the topic " + topic->display() + ", so the " +
                            (other ? "topic" : "topic_prefix") + " of the namespace's backend would have no effect",
                        "keep one of them");
    }
  }
  if (const Node* backend = destination->find("backend"); backend != nullptr && around.log_type != nullptr &&
                                                          !around.backend.empty() &&
                                                          around.backend != backend->text()) {
    diagnostics.error(*backend, "CONTRADICTING_OPTIONS",
                      "messages go to " + backend->display() + ", so the namespace's backend '" + around.backend +
                          "' would have no effect",
                      "keep one of them");
  }
}

std::vector<Holding> holdings(const Node& entry) {
  Diagnostics validated_before;
  const Options options = read_options(entry, validated_before);
  const Node* const table = entry.find("table");
  const Node* database = entry.find("database");
  if (database != nullptr && database->is_map()) database = database->find("backend");
  return {{.kind = Holding::Kind::table,
           .backend = options.database,
           .container = {},
           .name = options.table,
           .shown = "the table " + (table != nullptr ? table->display() : "'" + options.table + "'") + " of " +
                    (database != nullptr ? database->display() : "'" + options.database + "'"),
           .at = table != nullptr ? *table : entry}};
}

}  // namespace prism::outbox
