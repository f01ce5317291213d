#include "namespaces/planner.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "namespaces/composition.h"
#include "namespaces/guarantees.h"

namespace prism {
namespace {

using config::Diagnostics;
using config::Duration;
using config::DurationOrInfinite;
using config::Entry;
using config::Enum;
using config::Lifetime;
using config::Node;
using config::Rate;
using config::Schema;
using config::Size;

constexpr std::uint64_t kInlineBytes = 1'000'000;  // the default threshold of claim-check
constexpr double kReferenceBytes = 1000;           // of a record that refers to a payload, at most
constexpr std::uint32_t kCopies = 3;               // from which one may be missing
constexpr std::uint32_t kMaxPartitions = 100'000;
constexpr double kDay = 86'400;
constexpr auto kRelayInterval = std::chrono::milliseconds(100);  // the outbox's default
constexpr auto kUploadTime = std::chrono::milliseconds(50);      // RFC-014: a stored payload costs up to this much
constexpr auto kCommitTime = std::chrono::milliseconds(10);      // RFC-014: a row costs up to this much

enum class Consistency : std::uint8_t { eventual, strong };
enum class Sequence : std::uint8_t { none, per_key };
enum class Outlives : std::uint8_t { process, host, disk };

struct Requirements {
  std::optional<std::uint64_t> message_size, typical_size;
  std::optional<Consistency> consistency;
  std::optional<Lifetime> retention;
  std::optional<double> throughput;
  double throughput_per_partition = 0;
  std::optional<std::chrono::nanoseconds> latency;
  std::optional<Sequence> order;
  std::optional<Outlives> durability;
};

// People ask for a total order, and there is none to be had: they are told why, and what is near to it.
struct OrderKind {
  Enum<Sequence> known{{{"none", Sequence::none}, {"per_key", Sequence::per_key}}};

  config::TypeInfo info() const { return known.info(); }
  bool parse(const Node& node, Sequence& out, Diagnostics& diagnostics) const {
    if (!node.is_scalar() || node.text() != "total") return known.parse(node, out, diagnostics);
    diagnostics.error(node, "REQUIREMENTS_UNSATISFIABLE",
                      "there is no order of all messages: those of different keys are delivered side by side, also on "
                      "one partition",
                      "use order: per_key, and publish what must stay in order with one ordering key; it then has the "
                      "throughput of one partition");
    return false;
  }
};

const Schema<Requirements>& schema() {
  static const auto result =
      Schema<Requirements>("requirements", "What the namespace must achieve; Prism chooses the patterns.")
          .field(&Requirements::message_size, "message_size", Size{.min = 1},
                 "The largest payload. Above what a record of the log holds well (1 MB), claim-check is added.")
          .example("5GB")
          .field(&Requirements::typical_size, "typical_size", Size{.min = 1},
                 "The usual payload; the estimate of storage is made with it.")
          .example("200kB")
          .field(&Requirements::consistency, "consistency",
                 Enum<Consistency>{{{"strong", Consistency::strong}, {"eventual", Consistency::eventual}}},
                 "strong: state and event never diverge, so outbox is added.")
          .example("strong")
          .field(&Requirements::retention, "retention", DurationOrInfinite{.min = std::chrono::seconds(1)},
                 "How long messages can be read. Longer than the log keeps them, tiered-storage is added.")
          .example("30 days")
          .field(&Requirements::throughput, "throughput", Rate{},
                 "Messages published per time at the busiest; the number of partitions follows from it.")
          .example("10k msgs/s")
          .field(&Requirements::throughput_per_partition, "throughput_per_partition", Rate{},
                 "What one partition is trusted with.")
          .default_("500 msgs/s")
          .field(&Requirements::latency, "latency", Duration{.min = std::chrono::milliseconds(1)},
                 "How long after its publish a consumer that waits should have a message; how often the outbox is "
                 "looked at follows from it.")
          .example("50ms")
          .field(&Requirements::order, "order", OrderKind{},
                 "Which messages must arrive in order: those of one ordering key, or none. What is published with one "
                 "key alone is in order as a whole, and has the throughput of one partition.")
          .example("per_key")
          .field(&Requirements::durability, "durability",
                 Enum<Outlives>{{{"process", Outlives::process}, {"host", Outlives::host}, {"disk", Outlives::disk}}},
                 "What acknowledged messages must survive: a killed process, a host's loss of power, the loss of a "
                 "disk or server. The number of copies follows from it.")
          .example("disk")
          .check({"message_size", "typical_size"},
                 [](const Requirements& wanted, const Node& map, Diagnostics& diagnostics) {
                   if (!wanted.message_size || wanted.typical_size.value_or(0) <= *wanted.message_size) return;
                   const Node &usual = *map.find("typical_size"), &largest = *map.find("message_size");
                   diagnostics.error(usual, "CONTRADICTING_OPTIONS",
                                     "the usual payload, " + usual.display() + ", is larger than the largest, " +
                                         largest.display() + " (" + largest.position().to_string() + ")",
                                     "raise message_size, or lower typical_size");
                 });
  return result;
}

bool has(const BackendType& type, std::string_view capability) {
  return std::ranges::find(type.capabilities, capability) != type.capabilities.end();
}

std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value >= 1e6 ? "%.0f" : "%.6g", value);
  return text.data();
}

std::string counted(double value, std::string_view what) {
  const std::string text = number(value);
  return text + " " + std::string(what) + (text == "1" ? "" : "s");
}

std::string messages_a_second(double value) { return counted(value, "message") + " a second"; }

class Planner {
 public:
  Planner(const Node& ns, const Node& at, const Requirements& wanted, const std::vector<BackendSpec>& backends,
          const Components& components, Diagnostics& diagnostics)
      : ns_(ns), at_(at), wanted_(wanted), components_(components), diagnostics_(diagnostics) {
    file_.backends = backends;
  }

  std::optional<Plan> make() {
    const std::size_t errors = diagnostics_.error_count();
    choose_api();
    choose_log();
    choose_claim_check();
    choose_outbox();
    choose_tiers();
    choose_cleanup();
    choose_partitions();
    choose_copies();
    choose_order();
    if (diagnostics_.error_count() != errors) return std::nullopt;
    compose();
    estimate();
    return std::move(plan_);
  }

 private:
  // Where the value of a requirement stands.
  const Node& at(std::string_view requirement) const {
    const Node* found = at_.find(requirement);
    return found != nullptr ? *found : at_;
  }

  void decide(Decision decision) { plan_.decisions.push_back(std::move(decision)); }
  void cannot(std::string_view requirement, std::string message, std::string hint) {
    diagnostics_.error(at(requirement), "REQUIREMENTS_UNSATISFIABLE", std::move(message), std::move(hint));
  }

  void choose_api() {
    if (const Node* given = ns_.find("client_api")) {
      api_ = given->text();
      if (api_ == "pubsub" || api_ == "queue" || api_ == "transact") return;
      cannot("", "requirements are planned for messages, and client_api is " + given->display(),
             "use client_api pubsub, queue or transact, or write the patterns themselves");
      return;
    }
    decide({"",
            "client_api",
            "pubsub",
            "publishing to every consumer group is the usual need, and no client_api is given",
            {"queue: the same chain serves it too, once it is asked for"}});
  }

  // The configured backend that can do it, if there is one, else the usual one.
  std::string pick(std::string_view capability, std::string_view usual) const {
    for (const BackendSpec& spec : file_.backends) {
      const BackendType* type = components_.backend(spec.type);
      if (type != nullptr && type->name == usual) return spec.name;
    }
    for (const BackendSpec& spec : file_.backends) {
      const BackendType* type = components_.backend(spec.type);
      if (type != nullptr && has(*type, capability)) return spec.name;
    }
    return std::string(usual);
  }

  void choose_log() {
    if (const Node* given = ns_.find("backend")) {
      if (given->is_scalar()) log_ = given->text();
      for (const std::string_view key : {"type", "name", "queue"}) {
        if (const Node* name = given->find(key)) log_ = name->text();
      }
      log_type_ = backend_type(file_, components_, log_);
      return;
    }
    log_ = pick("event-log", "kafka");
    log_type_ = backend_type(file_, components_, log_);
    std::vector<std::string> rejected;
    for (const BackendType& type : components_.backends) {
      if (!has(type, "event-log") || (log_type_ != nullptr && type.name == log_type_->name)) continue;
      rejected.push_back(std::string(type.name) + ": name it with `backend:` to have it");
    }
    decide({"", "backend", log_, why_picked(log_, "holds logs of messages", "log of messages"), std::move(rejected)});
  }

  // Why pick() has chosen so.
  std::string why_picked(const std::string& name, std::string_view does, std::string_view what) const {
    return file_.backend(name) != nullptr ? "it is configured and " + std::string(does)
                                          : "no " + std::string(what) + " is configured, and this is the usual one";
  }

  // The object store that the namespace names itself, else the one that pick() finds.
  std::string object_store() const {
    const Node* section = ns_.find("claim_check");
    const Node* storage = section != nullptr ? section->find("storage") : nullptr;
    const Node* named = storage != nullptr && storage->is_map() ? storage->find("backend") : storage;
    return named != nullptr && !named->text().empty() ? named->text() : pick("object-store", "s3");
  }

  std::uint64_t inline_bytes() const {
    if (log_type_ == nullptr || !log_type_->log) return kInlineBytes;
    return std::min<std::uint64_t>(kInlineBytes, log_type_->log->max_record_bytes);
  }

  void choose_claim_check() {
    const auto largest = wanted_.message_size ? wanted_.message_size : wanted_.typical_size;
    if (!largest) return;
    size_by_ = wanted_.message_size ? "message_size" : "typical_size";
    const std::string size = config::format_size(*largest);
    if (*largest <= inline_bytes()) {
      decide({size_by_,
              "claim-check",
              "no",
              "payloads of " + size + " fit into a record of " + log_,
              {"claim-check: an upload for each message, and no need for it"}});
      return;
    }
    claim_check_ = true;
    objects_ = object_store();
    const BackendType* store = backend_type(file_, components_, objects_);
    if (store != nullptr && store->max_object_bytes != 0 && *largest > store->max_object_bytes) {
      const std::string most = config::format_size(store->max_object_bytes);
      cannot(size_by_,
             "a payload of " + size + " fits nowhere: a record of " + log_ + " takes " +
                 config::format_size(inline_bytes()) + ", an object of " + objects_ + " " + most,
             "ask for " + most + " at most, and publish what is larger in several messages");
      return;
    }
    std::vector<std::string> rejected;
    if (log_type_ != nullptr && log_type_->log && !log_type_->log->setting.empty()) {
      rejected.push_back("raising " + std::string(log_type_->log->setting) +
                         ": every replica and every fetch would carry whole payloads");
    }
    rejected.emplace_back("cutting payloads into records: consumers of other clients could not read them");
    decide({size_by_, "claim-check", "yes",
            "payloads of up to " + size + " do not fit into a record of " + log_ + " (" +
                config::format_size(inline_bytes()) + "), so larger ones are stored in " + objects_,
            std::move(rejected)});
    if (wanted_.latency && *wanted_.latency < kUploadTime) {
      diagnostics_.warning(at("latency"), "REQUIREMENT_AT_RISK",
                           "a payload that is stored takes up to " + config::format_duration(kUploadTime) +
                               " longer than the log alone; only smaller messages arrive within " +
                               config::format_duration(*wanted_.latency));
    }
  }

  void choose_outbox() {
    const bool asked = wanted_.consistency == Consistency::strong;
    if (!asked && api_ != "transact") {
      if (wanted_.consistency) {
        decide({"consistency",
                "outbox",
                "no",
                "a publish is answered when the log has it, and that is enough",
                {"outbox: a database commit for each publish, and no need for it"}});
      }
      return;
    }
    outbox_ = true;
    database_ = pick("sql-database", "postgres");
    decide({asked ? "consistency" : "",
            "outbox",
            "yes",
            asked ? "state and event must not diverge, so that the event is a row of the same database"
                  : "client_api transact commits messages together",
            {"publishing after the commit: a crash between the two loses the event",
             "change-data-capture: needs the application's tables, and publishes rows instead of events",
             "event-sourcing: the application's state would have to be made from events"}});
    if (!wanted_.latency) return;
    relay_interval_ =
        std::clamp<std::chrono::nanoseconds>(*wanted_.latency / 2, std::chrono::milliseconds(1), kRelayInterval);
    relay_interval_ = std::chrono::floor<std::chrono::milliseconds>(relay_interval_);
    decide(
        {"latency",
         "publisher.interval",
         config::format_duration(relay_interval_),
         "a row that the relay was not woken for is seen within half of " + config::format_duration(*wanted_.latency),
         {"a shorter interval: more queries that find nothing"}});
    if (*wanted_.latency < kCommitTime) {
      diagnostics_.warning(at("latency"), "REQUIREMENT_AT_RISK",
                           "the outbox's commit alone takes up to " + config::format_duration(kCommitTime),
                           "give more time, or do without consistency: strong");
    }
  }

  void choose_tiers() {
    if (!wanted_.retention) return;
    const Lifetime& keep = *wanted_.retention;
    const std::string how_long = keep ? config::format_duration(*keep) : "ever";
    const auto kept = log_type_ != nullptr && log_type_->log ? log_type_->log->retention : std::nullopt;
    if (!kept || (keep && *keep <= *kept)) {
      decide({"retention",
              "tiered-storage",
              "no",
              kept ? log_ + " keeps messages for " + config::format_duration(*kept) + ", which covers it"
                   : log_ + " keeps messages without end",
              {"tiered-storage: a second store and its moves, and no need for them"}});
      return;
    }
    tiers_ = true;
    if (objects_.empty()) objects_ = object_store();
    decide({"retention",
            "tiered-storage",
            "yes",
            "messages must be readable for " + how_long + ", and " + log_ + " keeps them for " +
                config::format_duration(*kept) + "; older ones go to " + objects_,
            {"a longer retention of the log: its disks cost several times an object store's, in each copy"}});
  }

  // How long payloads are kept, where that is asked for.
  void choose_cleanup() {
    if (!claim_check_ || !wanted_.retention || given("claim_check", "cleanup")) return;
    const Lifetime kept = payload_lifetime();
    const std::string asked = config::format_lifetime(*wanted_.retention);
    std::string because = "payloads must be readable for " + (*wanted_.retention ? asked : "ever");
    if (kept != *wanted_.retention) {
      because += ", and " + log_ + " keeps the records that refer to them for " + config::format_lifetime(kept);
    }
    std::vector<std::string> rejected = {
        "on_consume: a payload would go when every group has acknowledged it, and could not be read again"};
    if (kept != *wanted_.retention) {
      rejected.push_back(asked + ": records would be left whose payloads are gone");
    }
    decide({"retention", "cleanup", "after " + config::format_lifetime(kept), std::move(because), std::move(rejected)});
    if (!kept) plan_.decisions.back().chosen = "never";
  }

  void choose_partitions() {
    if (!wanted_.throughput) return;
    const double exact = std::ceil(*wanted_.throughput / wanted_.throughput_per_partition);
    if (exact > kMaxPartitions) {
      cannot("throughput",
             messages_a_second(*wanted_.throughput) + " would take " + counted(exact, "partition") + ", more than " +
                 std::to_string(kMaxPartitions),
             "raise throughput_per_partition, or divide the namespace");
      return;
    }
    partitions_ = std::max<std::uint32_t>(1, static_cast<std::uint32_t>(exact));
    if (const Node* backend = ns_.find("backend"); backend != nullptr && backend->find("partitions") != nullptr) {
      const std::string given = backend->find("partitions")->text();
      decide({"throughput",
              "partitions",
              given,
              "the namespace gives them itself; the requirement would have been " + std::to_string(partitions_),
              {}});
      if (std::strtoul(given.c_str(), nullptr, 10) < partitions_) {
        diagnostics_.warning(
            at("throughput"), "REQUIREMENT_AT_RISK",
            "the backend's partitions are " + given + ", and this throughput asks for " + std::to_string(partitions_),
            "leave `partitions` out");
      }
      partitions_ = static_cast<std::uint32_t>(std::strtoul(given.c_str(), nullptr, 10));
      return;
    }
    decide({"throughput",
            "partitions",
            std::to_string(partitions_),
            messages_a_second(*wanted_.throughput) + ", up to " + number(wanted_.throughput_per_partition) +
                " on each partition",
            {"fewer: a partition has one order and one leader, and would be the limit",
             "more: each costs files and memory on the brokers, and a key's partition changes when they are added"}});
  }

  void choose_order() {
    if (!wanted_.order) return;
    decide({"order",
            "order",
            *wanted_.order == Sequence::none ? "none" : "per_key",
            *wanted_.order == Sequence::none
                ? "messages without an ordering key are free to go to any partition"
                : "messages of one ordering key lie in one partition and are handed out one run at a time",
            {}});
  }

  Survives survives(const Survival& survival) const {
    switch (*wanted_.durability) {
      case Outlives::process:
        return survival.process_kill;
      case Outlives::host:
        return survival.power_loss;
      case Outlives::disk:
        return survival.disk_loss;
    }
    return Survives::no;
  }

  void choose_copies() {
    if (!wanted_.durability) return;
    const std::string event = *wanted_.durability == Outlives::process ? "a killed process"
                              : *wanted_.durability == Outlives::host  ? "a host's loss of power"
                                                                       : "the loss of a disk or server";
    const Node* backend = ns_.find("backend");
    const bool given = backend != nullptr && backend->find("replication") != nullptr;
    std::optional<std::uint32_t> copies;
    if (given)
      copies = static_cast<std::uint32_t>(std::strtoul(backend->find("replication")->text().c_str(), nullptr, 10));
    Survival log = survival_of(file_, components_, log_, copies, false);
    if (!given && survives(log) != Survives::yes) {
      const Survival with_copies = survival_of(file_, components_, log_, kCopies, false);
      if (survives(with_copies) > survives(log) || with_copies.why != log.why) {
        log = with_copies;
        replication_ = kCopies;
      }
    }
    if (survives(log) == Survives::no) {
      cannot("durability", log_ + " does not survive " + event + ": " + log.why,
             given ? "ask for replication 3" : "use a backend that keeps several copies");
      return;
    }
    decide({"durability", "replication",
            replication_ != 0 ? std::to_string(replication_)
            : given           ? std::to_string(*copies)
                              : std::string("as it is"),
            log_ + ": " + log.why,
            replication_ != 0
                ? std::vector<std::string>{"1: " + log_ + " would lose acknowledged messages with " + event,
                                           "2: one missing broker would stop writes, or leave one copy"}
                : std::vector<std::string>{}});
    for (const auto& [store, used] : {std::pair(database_, outbox_), std::pair(objects_, claim_check_)}) {
      if (!used) continue;
      const Survival held = survival_of(file_, components_, store, std::nullopt, false);
      if (survives(held) == Survives::no) {
        cannot("durability", store + " does not survive " + event + ": " + held.why, "use another backend for it");
      } else if (survives(held) == Survives::depends) {
        diagnostics_.warning(at("durability"), "REQUIREMENT_AT_RISK",
                             "whether " + store + " survives " + event + " depends on how it is set up: " + held.why);
      }
    }
  }

  // ---- the derived namespace ----

  static Entry entry(std::string key, Node value) {
    const auto position = value.position();
    return {std::move(key), position, std::move(value)};
  }
  static Node plain(std::string text, const Node& where) { return Node::make_plain(std::move(text), where); }

  // Is the option given in a section beside, so that it must not be said again?
  bool given(std::string_view section, std::string_view option) const {
    const Node* found = ns_.find(section);
    return (found != nullptr && found->find(option) != nullptr) || ns_.find(option) != nullptr;
  }

  Node outbox_entry() const {
    const Node& where = at("consistency");
    std::vector<Entry> entries{entry("type", plain("outbox", where))};
    if (!given("outbox", "database")) entries.push_back(entry("database", plain(database_, where)));
    if (!given("outbox", "table")) {
      // One table a namespace; its name is an identifier of SQL.
      std::string table = ns_.find("name") != nullptr ? ns_.find("name")->text() : std::string();
      std::ranges::replace(table, '-', '_');
      if (!table.empty() && table[0] >= '0' && table[0] <= '9') table.insert(0, "n_");
      table.resize(std::min<std::size_t>(table.size(), 50));
      entries.push_back(entry("table", plain(table + "_outbox", where)));
    }
    if (relay_interval_.count() > 0 && !given("outbox", "publisher")) {
      const Node& latency = at("latency");
      entries.push_back(entry(
          "publisher",
          Node::make_map({entry("interval", plain(config::format_duration(relay_interval_), latency))}, latency)));
    }
    return Node::make_map(std::move(entries), where);
  }

  Node claim_check_entry() const {
    const Node& where = at(size_by_);
    std::vector<Entry> entries{entry("type", plain("claim-check", where))};
    if (!given("claim_check", "threshold")) {
      // The record holds metadata too.
      const std::uint64_t threshold = std::min<std::uint64_t>(kInlineBytes, inline_bytes() * 9 / 10);
      entries.push_back(
          entry("threshold", plain(inline_bytes() == kInlineBytes ? "1MB" : config::format_size(threshold), where)));
    }
    if (!given("claim_check", "storage")) entries.push_back(entry("storage", plain(objects_, where)));
    if (wanted_.retention && !given("claim_check", "cleanup")) {
      const Node& kept = at("retention");
      entries.push_back(entry(
          "cleanup", Node::make_map({entry("strategy", plain("retention", kept)),
                                     entry("retention", plain(config::format_lifetime(payload_lifetime()), kept))},
                                    kept)));
    }
    return Node::make_map(std::move(entries), where);
  }

  // As long as is asked for, and no shorter than the log keeps what refers to a payload.
  Lifetime payload_lifetime() const {
    const Lifetime& wanted = *wanted_.retention;
    const auto kept = log_type_ != nullptr && log_type_->log ? log_type_->log->retention : std::nullopt;
    return wanted && kept && *wanted < *kept ? Lifetime(*kept) : wanted;
  }

  Node tiers_entry() const {
    const Node& where = at("retention");
    const Node cold = Node::make_map({entry("backend", plain(objects_, where)),
                                      entry("ttl", plain(config::format_lifetime(*wanted_.retention), where))},
                                     where);
    std::vector<Entry> entries{entry("type", plain("tiered-storage", where))};
    if (!given("tiered_storage", "tiers")) {
      entries.push_back(entry("tiers", Node::make_map({entry("cold", cold)}, where)));
    }
    return Node::make_map(std::move(entries), where);
  }

  Node backend_entry() const {
    const Node* present = ns_.find("backend");
    std::vector<Entry> entries;
    if (present != nullptr && present->is_map()) {
      entries.assign(present->entries().begin(), present->entries().end());
    } else {
      entries.push_back(entry("type", present != nullptr ? *present : plain(log_, at_)));
    }
    const auto add = [&](const char* key, std::uint32_t value, const Node& where) {
      if (value == 0 || std::ranges::find(entries, key, &Entry::key) != entries.end()) return;
      entries.push_back(entry(key, plain(std::to_string(value), where)));
    };
    add("partitions", partitions_, at("throughput"));
    add("replication", replication_, at("durability"));
    return Node::make_map(std::move(entries), present != nullptr ? *present : at_);
  }

  std::string reason_of(std::string_view part) const {
    for (const Decision& decision : plan_.decisions) {
      if (decision.part != part || decision.chosen == "no") continue;
      return (decision.requirement.empty() ? std::string() : decision.requirement + ": ") + decision.because;
    }
    return {};
  }

  // Of an option in a derived pattern.
  std::string reason_of_option(std::string_view option) const {
    if (option == "cleanup") return reason_of("cleanup");
    if (option == "publisher") return reason_of("publisher.interval");
    if (option == "storage") return why_picked(objects_, "stores objects", "object store");
    if (option == "database") return why_picked(database_, "holds tables", "database");
    if (option == "table") return "a table of its own: namespaces do not share one";
    if (option == "threshold") return "what is larger does not fit well into a record of " + log_;
    return {};
  }

  void compose() {
    std::vector<Node> patterns;
    const auto add = [&](bool wanted, Node node, std::string_view name) {
      if (!wanted) return;
      const std::string path = "patterns[" + std::to_string(patterns.size()) + "]";
      plan_.comments[path] = reason_of(name);
      for (const Entry& each : node.entries()) {
        const std::string why = reason_of_option(each.key);
        if (!why.empty()) plan_.comments[path + "." + each.key] = why;
      }
      patterns.push_back(std::move(node));
    };
    add(outbox_, outbox_ ? outbox_entry() : Node(), "outbox");
    add(claim_check_, claim_check_ ? claim_check_entry() : Node(), "claim-check");
    add(tiers_, tiers_ ? tiers_entry() : Node(), "tiered-storage");

    std::vector<Entry> entries;
    if (const Entry* name = ns_.entry("name")) entries.push_back(*name);
    if (const Entry* api = ns_.entry("client_api")) {
      entries.push_back(*api);
    } else {
      entries.push_back(entry("client_api", plain("pubsub", at_)));
      plan_.comments["client_api"] = reason_of("client_api");
    }
    if (!patterns.empty()) entries.push_back(entry("patterns", Node::make_list(std::move(patterns), at_)));
    entries.push_back(entry("backend", backend_entry()));
    for (const std::string_view part : {"backend", "partitions", "replication"}) {
      const std::string reason = reason_of(part);
      if (!reason.empty()) plan_.comments[part == "backend" ? "backend" : "backend." + std::string(part)] = reason;
    }
    for (const Entry& each : ns_.entries()) {
      if (each.key == "requirements" || each.key == "pattern" || each.key == "patterns") continue;
      if (std::ranges::find(entries, each.key, &Entry::key) == entries.end()) entries.push_back(each);
    }
    plan_.derived = Node::make_map(std::move(entries), ns_);
  }

  // ---- the estimate ----

  struct Held {
    double seconds = 0;
    std::string text;
  };
  // What is kept without end is counted for a year.
  static Held held(const Lifetime& lifetime) {
    if (!lifetime) return {365 * kDay, "for ever, of which this is a year"};
    return {std::chrono::duration<double>(*lifetime).count(), "for " + config::format_duration(*lifetime)};
  }

  void estimate() {
    Estimate& out = plan_.estimate;
    out.partitions = partitions_;
    if (wanted_.typical_size || wanted_.message_size) {
      out.message_bytes = wanted_.typical_size.value_or(wanted_.message_size.value_or(0));
      out.upper_bound = !wanted_.typical_size;
    }
    if (!wanted_.throughput) return;
    out.messages_per_second = *wanted_.throughput;
    const auto size = static_cast<double>(out.message_bytes);
    const bool stored = claim_check_ && out.message_bytes > kInlineBytes;
    const double record = stored ? kReferenceBytes : size;
    const double copies = replication_ != 0 ? replication_ : 1;

    // How long the log holds a record: what it keeps by itself; where that has no end, what is asked for.
    const auto kept = log_type_ != nullptr && log_type_->log ? log_type_->log->retention : std::nullopt;
    const Held in_log = kept ? held(Lifetime(*kept)) : wanted_.retention ? held(*wanted_.retention) : held(Lifetime());
    const double rate = out.messages_per_second;
    out.stores.push_back({log_, "records", rate * record * in_log.seconds * copies, rate * copies, in_log.text});
    if (outbox_) out.stores.push_back({database_, "rows", 0, rate, "until they are relayed"});
    if (stored) {
      // Without a retention payloads are deleted as they are consumed, and after 7 days at the latest.
      Held in_store{7 * kDay, "until they are consumed, for which 7d are assumed, the longest"};
      if (wanted_.retention) in_store = held(payload_lifetime());
      out.stores.push_back({objects_, "payloads", rate * size * in_store.seconds, rate, in_store.text});
    }
    if (tiers_) {
      const Held archived = held(*wanted_.retention);
      out.stores.push_back({objects_, "archived records",
                            rate * record * std::max(archived.seconds - in_log.seconds, 0.0), 0, archived.text});
    }

    std::vector<const Estimate::Store*> by_size;
    for (const auto& store : out.stores) by_size.push_back(&store);
    std::ranges::sort(by_size, std::greater<>(), [](const auto* store) { return store->bytes; });
    for (const auto* store : by_size) {
      if (store->bytes > 0) {
        out.cost_drivers.push_back(format_bytes(store->bytes) + " of " + store->what + " in " + store->backend +
                                   " (kept " + store->kept + ")");
      }
    }
    if (stored)
      out.cost_drivers.push_back(counted(rate, "upload") + " a second to " + objects_ +
                                 ", and a download for each group");
    if (outbox_)
      out.cost_drivers.push_back(counted(rate, "row") + " a second through " + database_ + ", written and removed");
    if (replication_ > 1)
      out.cost_drivers.push_back(std::to_string(replication_) + " copies of each record between brokers");
  }

  const Node& ns_;
  const Node& at_;
  const Requirements& wanted_;
  const Components& components_;
  Diagnostics& diagnostics_;
  FileSpec file_;  // its backends
  Plan plan_;
  std::string api_ = "pubsub";
  std::string log_, objects_, database_;
  std::string size_by_ = "message_size";  // the requirement that says how large payloads become
  const BackendType* log_type_ = nullptr;
  bool claim_check_ = false, outbox_ = false, tiers_ = false;
  std::chrono::nanoseconds relay_interval_{};
  std::uint32_t partitions_ = 0, replication_ = 0;  // 0: not decided
};

}  // namespace

std::optional<Plan> plan_namespace(const Node& ns, const std::vector<BackendSpec>& backends,
                                   const Components& components, Diagnostics& diagnostics) {
  const Node* at = ns.find("requirements");
  if (at == nullptr) return std::nullopt;
  const std::size_t errors = diagnostics.error_count();
  for (const std::string_view key : {"pattern", "patterns"}) {
    if (const auto* present = ns.entry(key)) {
      diagnostics.error(present->key_position, ns.path_of(key), "CONTRADICTING_OPTIONS",
                        "requirements stand in place of patterns, and both are given",
                        "keep one of them; `prism plan` prints the patterns that the requirements mean");
    }
  }
  const auto wanted = schema().parse(*at, diagnostics);
  if (!wanted || diagnostics.error_count() != errors) return std::nullopt;
  return Planner(ns, *at, *wanted, backends, components, diagnostics).make();
}

std::shared_ptr<const config::SchemaInfo> requirements_info() { return schema().shared_info(); }

std::string format_bytes(double bytes) {
  constexpr std::array kUnits = {"B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB"};
  std::size_t unit = 0;
  while (bytes >= 1000 && unit + 1 < kUnits.size()) {
    bytes /= 1000;
    ++unit;
  }
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.3g %s", bytes >= 100 ? std::round(bytes) : bytes, kUnits.at(unit));
  return text.data();
}

std::string format_text(const Plan& plan) {
  std::string out;
  for (const Decision& decision : plan.decisions) {
    out += decision.part + ": " + decision.chosen;
    if (!decision.requirement.empty()) out += " (for " + decision.requirement + ")";
    out += "\n  " + decision.because + "\n";
    for (const std::string& other : decision.rejected) out += "  not " + other + "\n";
  }
  const Estimate& estimate = plan.estimate;
  if (estimate.messages_per_second <= 0) {
    return out + "estimate: give `throughput`, and `typical_size`, to have one\n";
  }
  out += "estimate at " + messages_a_second(estimate.messages_per_second);
  if (estimate.message_bytes > 0) {
    out += std::string(estimate.upper_bound ? ", if every one had the largest size, " : " of ") +
           config::format_size(estimate.message_bytes) + (estimate.upper_bound ? " (give `typical_size`)" : "") + ", " +
           format_bytes(estimate.messages_per_second * kDay * static_cast<double>(estimate.message_bytes)) + " a day\n";
  } else {
    out += ": how much that stores is not known without `typical_size`\n";
  }
  for (const std::string& driver : estimate.cost_drivers) out += "  " + driver + "\n";
  return out;
}

}  // namespace prism
