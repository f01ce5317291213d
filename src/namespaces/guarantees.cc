#include "namespaces/guarantees.h"

#include <algorithm>
#include <ranges>

namespace prism {
namespace {

bool carries_messages(ClientApi api) {
  return api == ClientApi::pubsub || api == ClientApi::queue || api == ClientApi::transact;
}

// What a bare log promises.
void begin_with_log(const NamespaceSpec& ns, const std::string& log, const Shaping& by, Guarantees& out) {
  by.also_stored_in(log, "the record", out);
  out.acknowledged = "the record is on the log (" + log + ")";
  const std::string groups = ns.consumer_groups.empty()
                                 ? std::string("each consumer group")
                                 : "each of the " + std::to_string(ns.consumer_groups.size()) + " declared groups";
  reshape(out.delivery, by, Deliveries::at_least_once, groups + " receives every acknowledged message at least once",
          "a delivery that is not acknowledged in time comes again");
  reshape(
      out.order, by, Ordering::per_key, "messages of one ordering key arrive in the order in which they were accepted",
      "a key's records lie in one partition, and one run of them is out at a time; without a key there is no order");
  reshape(out.atomicity, by, Atomicity::message, "each message is published or not by itself, also in a batch",
          "the log takes or refuses each record by itself");
  reshape(out.freshness, by, Freshness::at_once, "a message can be consumed as soon as it is acknowledged",
          "the answer comes when the record is on the log");
}

// What bare rows or keys promise.
void begin_with_store(const std::string& store, const Shaping& by, Guarantees& out) {
  if (!store.empty()) {
    by.also_stored_in(store, "what is written", out);
    out.acknowledged = "the write is committed in " + store;
  }
  reshape(out.atomicity, by, Atomicity::message, "each write happens or not by itself",
          "each is a transaction of its own");
  reshape(out.freshness, by, Freshness::at_once, "a read sees every acknowledged write",
          "reads and writes go to the same store");
}

}  // namespace

Survival survival_of(const FileSpec& file, const Components& components, const std::string& backend,
                     std::optional<std::uint32_t> replication, bool embedded) {
  const BackendType* type = backend_type(file, components, backend);
  if (embedded && type != nullptr && type->embed) {
    Survival twin = synced_to_one_disk();
    twin.why = "the embedded twin: " + twin.why;
    return twin;
  }
  if (type == nullptr || !type->survival) return {.why = "nothing is known of it"};
  const BackendSpec* spec = file.backend(backend);
  return type->survival({.options = spec != nullptr ? spec->options : config::Node(), .replication = replication});
}

Promise promise(const FileSpec& file, const NamespaceSpec& ns, const Components& components, const Catalogue& catalogue,
                bool embedded, const Because& asked) {
  Promise out;
  out.guarantees.fresh_reads_asked = asked;
  const std::string log = log_backend(ns, catalogue);
  const std::string bottom = log.empty() ? "backend" : log;
  const config::Node nothing;
  // A namespace asks for copies of its topics; other stores keep as many as they do.
  const auto survival = [&](const std::string& backend) {
    return survival_of(file, components, backend, backend == log ? ns.backend.replication : std::nullopt, embedded);
  };
  const bool messages = carries_messages(ns.api());
  const Shaping base{.step = bottom, .options = nothing, .messages = messages, .survival = survival};
  if (messages && !log.empty()) {
    begin_with_log(ns, log, base, out.guarantees);
  } else {
    begin_with_store(ns.backend.name, base, out.guarantees);
  }

  const Composition composition = compose(ns, catalogue);
  for (const std::string& step : std::views::reverse(composition.chain)) {
    const PatternInfo& info = *catalogue.find(step);
    if (info.shape == nullptr) continue;
    const auto spec =
        std::ranges::find_if(ns.patterns, [&](const PatternSpec& each) { return each.enabled && each.type == step; });
    info.shape({.step = info.name, .options = spec->options, .messages = messages, .survival = survival},
               out.guarantees);
    const Because& wanted = out.guarantees.fresh_reads_asked;
    if (out.contradiction || wanted.step.empty() || out.guarantees.freshness.level == Freshness::at_once) continue;
    const Because& last = out.guarantees.freshness.because.back();
    out.contradiction = Contradiction{last.step, wanted.step, wanted.why, last.why};
  }
  return out;
}

}  // namespace prism
