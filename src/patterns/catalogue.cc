#include "patterns/catalogue.h"

#include <algorithm>

#include "patterns/guarantees.h"

namespace prism {
namespace {

using config::Node;

// "b" for options {a: {b: x}} and path "a.b"; empty: not given, or no text.
std::string text_at(const Node& options, std::string_view path) {
  Node node = options;
  while (!path.empty()) {
    const std::size_t dot = path.find('.');
    const Node* next = node.find(path.substr(0, dot));
    if (next == nullptr) return {};
    node = Node(*next);
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return node.text();
}

// What the patterns that are not built do to reads, so that contradictions are found before they are.
void shape_cache(const Shaping& by, Guarantees& guarantees) {
  if (text_at(by.options, "strategy") == "write-through") return;
  const std::string ttl = text_at(by.options, "ttl");
  reshape(guarantees.freshness, by, Freshness::eventually, "a read may return a value that was replaced since",
          "a cached value is served until it expires" + (ttl.empty() ? std::string() : " (ttl " + ttl + ")") +
              " or is invalidated, whatever was written meanwhile");
}

void shape_write_ahead_log(const Shaping& by, Guarantees& guarantees) {
  const std::string log = text_at(by.options, "backend");
  by.also_stored_in(log.empty() ? "kafka" : log, "the entry, until it is applied", guarantees);
  guarantees.acknowledged = "the entry is on the log; the database gets it afterwards";
  const std::string mode = text_at(by.options, "consistency.read_mode");
  if (mode == "database" && text_at(by.options, "apply_mode") != "sync") {
    reshape(guarantees.freshness, by, Freshness::eventually, "a read sees a write when it has been applied",
            "reads go to the database alone, which gets entries after they were acknowledged");
    return;
  }
  reshape(guarantees.freshness, by, Freshness::at_once, "a read sees every acknowledged write",
          "entries that are not yet applied are read from the log");
  if (mode == "wal_first") guarantees.fresh_reads_asked = {std::string(by.step), "consistency.read_mode wal_first"};
}

void shape_tiered_storage(const Shaping& by, Guarantees& guarantees) {
  const Node* tiers = by.options.find("tiers");
  if (tiers == nullptr) return;
  for (const auto& tier : tiers->entries()) {
    const std::string backend = text_at(tier.value, "backend");
    if (!backend.empty()) by.also_stored_in(backend, "what is in the " + tier.key + " tier", guarantees);
  }
}

void shape_event_sourcing(const Shaping& by, Guarantees& guarantees) {
  const std::string log = text_at(by.options, "event_store.backend");
  by.also_stored_in(log.empty() ? "kafka" : log, "the event, for ever", guarantees);
  guarantees.acknowledged = "the event is in the event store; views get it afterwards";
  reshape(guarantees.freshness, by, Freshness::eventually, "a view shows an event some time after it was acknowledged",
          "views are made from the event store in the background");
}

void shape_cqrs(const Shaping& by, Guarantees& guarantees) {
  guarantees.acknowledged = "the command is committed in the write model; read models get it afterwards";
  reshape(guarantees.freshness, by, Freshness::eventually,
          "a read model shows a command some time after it was answered",
          "read models are made from the write model's changes in the background");
}

// What is not built yet. An entry goes when its folder declares it.
const std::vector<PatternInfo>& not_built() {
  static const std::vector<PatternInfo> all = {
      {
          .name = "pub-sub",
          .version = "1.0.0",
          .summary = "several consumer groups, each of which receives every message",
          .apis = {"pubsub"},
          .backends = {{.option = "", .any_of = {"event-log"}, .standard = ""}},
          .gives = {"declared consumer groups, each of which receives every message"},
          .rank = 0,
          .in_request = false,
      },
      {
          .name = "cache",
          .version = "1.0.0",
          .summary = "answers reads from a faster store",
          .apis = {"reader", "keyvalue", "cache"},
          .backends = {{.option = "backend", .any_of = {"key-value-store"}, .standard = "redis"}},
          .gives = {"fast repeated reads"},
          .rank = 5,
          .shape = shape_cache,
      },
      {
          .name = "write-ahead-log",
          .version = "1.0.0",
          .summary = "appends writes to a durable log and applies them to the database afterwards",
          .apis = {"keyvalue", "queue", "pubsub"},
          .backends = {{.option = "backend", .any_of = {"event-log"}, .standard = "kafka"},
                       {.option = "consumers[].backend",
                        .any_of = {"sql-database", "key-value-store", "object-store"},
                        .standard = ""},
                       {.option = "", .any_of = {"sql-database", "key-value-store"}, .standard = ""}},
          .gives = {"writes as fast as the log", "acknowledged writes outlive the database's failures",
                    "the log as a readable source of truth"},
          .role = kFirstRecord,
          .rank = 30,
          .before = {"tiered-storage"},
          .shape = shape_write_ahead_log,
      },
      {
          .name = "tiered-storage",
          .version = "1.0.0",
          .summary = "moves data between hot, warm and cold stores as they age",
          .apis = {"keyvalue", "pubsub", "queue", "transact"},
          .backends = {{.option = "reference_store.backend", .any_of = {"sql-database"}, .standard = "postgres"},
                       {.option = "tiers[].backend",
                        .any_of = {"key-value-store", "sql-database", "object-store"},
                        .standard = ""}},
          .gives = {"long retention at the price of the cheapest store", "one name for data in every tier"},
          .conflicts =
              {{"event-sourcing",
                "the event store keeps every event itself, while tiers move them and the lowest deletes them"}},
          .rank = 40,
          .shape = shape_tiered_storage,
      },
      {
          .name = "event-sourcing",
          .version = "1.0.0",
          .summary = "keeps every change as an event, from which the state is made",
          .apis = {"events", "views", "transact"},
          .backends = {{.option = "event_store.backend", .any_of = {"event-log"}, .standard = "kafka"},
                       {.option = "materialized_views[].backend",
                        .any_of = {"sql-database", "key-value-store", "search"},
                        .standard = ""},
                       {.option = "snapshots.backend", .any_of = {"sql-database", "key-value-store"}, .standard = ""}},
          .gives = {"a full history", "the state as of any time"},
          .role = kFirstRecord,
          .rank = 50,
          .before = {"cqrs"},
          .shape = shape_event_sourcing,
      },
      {
          .name = "cqrs",
          .version = "1.0.0",
          .summary = "sends commands to a write model and queries to read models made from it",
          .apis = {"views"},
          .backends = {{.option = "write_model.backend", .any_of = {"sql-database"}, .standard = "postgres"},
                       {.option = "read_models[].backend",
                        .any_of = {"sql-database", "key-value-store", "search"},
                        .standard = ""},
                       {.option = "synchronization.backend", .any_of = {"event-log"}, .standard = ""}},
          .gives = {"reads and writes that scale apart", "read models in the shape of the queries"},
          .rank = 60,
          .shape = shape_cqrs,
      },
      {
          .name = "change-data-capture",
          .version = "1.0.0",
          .summary = "publishes a database's committed changes and brings them to consumers",
          .backends = {{.option = "source.backend", .any_of = {"sql-database"}, .standard = "postgres"},
                       {.option = "sink.backend", .any_of = {"event-log"}, .standard = "kafka"}},
          .gives = {"every committed change as an event, with no code in the application"},
          .rank = 90,
          .in_request = false,
      },
  };
  return all;
}

bool share_an_api(const PatternInfo& a, const PatternInfo& b) {
  if (a.apis.empty() || b.apis.empty()) return true;
  return std::ranges::any_of(a.apis, [&](std::string_view api) { return supports(b, api); });
}

std::string listed(const std::vector<std::string_view>& names) {
  std::string out;
  for (const std::string_view name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

const PatternConflict* conflict(const PatternInfo& by, const PatternInfo& with) {
  const auto found = std::ranges::find(by.conflicts, with.name, &PatternConflict::pattern);
  return found == by.conflicts.end() ? nullptr : &*found;
}

}  // namespace

Catalogue::Catalogue(const Components& components) {
  for (const PatternType& type : components.patterns) patterns_.push_back(type.info);
  for (const PatternInfo& info : not_built()) {
    if (find(info.name) == nullptr) patterns_.push_back(info);
  }
  std::ranges::sort(patterns_, {}, &PatternInfo::rank);
}

const PatternInfo* Catalogue::find(std::string_view name) const noexcept {
  const auto found = std::ranges::find(patterns_, name, &PatternInfo::name);
  return found == patterns_.end() ? nullptr : &*found;
}

bool supports(const PatternInfo& pattern, std::string_view api) noexcept {
  return pattern.apis.empty() || std::ranges::find(pattern.apis, api) != pattern.apis.end();
}

std::optional<std::string> why_incompatible(const PatternInfo& a, const PatternInfo& b) {
  // One text for both orders.
  if (b.rank < a.rank) return why_incompatible(b, a);
  const std::string both = std::string(a.name) + " and " + std::string(b.name);
  if (const PatternConflict* said = conflict(a, b)) return both + " contradict each other: " + std::string(said->why);
  if (const PatternConflict* said = conflict(b, a)) return both + " contradict each other: " + std::string(said->why);
  if (!a.role.empty() && a.role == b.role) return both + " would each be " + std::string(a.role);
  if (!share_an_api(a, b)) {
    return both + " serve different APIs: " + std::string(a.name) + " works under " + listed(a.apis) + "; " +
           std::string(b.name) + " under " + listed(b.apis);
  }
  return std::nullopt;
}

bool must_precede(const PatternInfo& first, const PatternInfo& second) noexcept {
  return std::ranges::find(first.before, second.name) != first.before.end();
}

}  // namespace prism
