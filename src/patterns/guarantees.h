// What a namespace promises, claim by claim, each with the reasons that made it so. Computed from the backends upwards:
// each pattern changes what stands below it (PatternInfo::shape).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "capabilities/survival.h"
#include "config/document.h"

namespace prism {

// How often an acknowledged message reaches each consumer group.
enum class Deliveries : std::uint8_t { none, at_least_once };
// Messages in the order in which they were accepted. per_key: those of one ordering key.
enum class Ordering : std::uint8_t { none, per_key };
// What happens as a whole or not at all. call: the accepted messages of one call.
enum class Atomicity : std::uint8_t { message, call, transaction };
// Does a read, or a consumer, see what was acknowledged? eventually: after a time.
enum class Freshness : std::uint8_t { eventually, at_once };

std::string_view to_string(Deliveries) noexcept;  // "none", "at-least-once"
std::string_view to_string(Ordering) noexcept;    // "none", "per-key"
std::string_view to_string(Atomicity) noexcept;   // "message", "call", "transaction"
std::string_view to_string(Freshness) noexcept;   // "eventually", "at-once"

struct Because {
  std::string step;  // a pattern or a backend ("outbox", "kafka")
  std::string why;   // one sentence without its full stop
};

template <class Level>
struct Claim {
  Level level{};
  std::string text;              // the claim in words
  std::vector<Because> because;  // of the claim as it stands, from the backend outwards
};

struct Guarantees {
  Claim<Deliveries> delivery;
  Claim<Ordering> order;
  Claim<Atomicity> atomicity;
  Claim<Freshness> freshness;
  Survival survival = Survival::everything();  // of all that an acknowledged item is made of; `why` is empty
  std::string acknowledged;                    // what has happened when a call is answered, in words
  std::vector<Because> durability;             // the stores that hold a part of it, and the reasons of each
  std::vector<Because> limits;                 // what is not promised, where one may think that it is
  // Who asks that reads see what was acknowledged, and in which words; empty step: nobody. Checked after every step.
  Because fresh_reads_asked;
};

// What a pattern finds while guarantees are computed.
struct Shaping {
  std::string_view step;        // its own name
  const config::Node& options;  // valid, if the pattern is built
  bool messages = true;         // the namespace publishes and consumes; false: it is read and written
  // What a backend's writes survive, by the name in the file.
  std::function<Survival(const std::string& backend)> survival;

  // A further store holds a part of each acknowledged item.
  void also_stored_in(const std::string& backend, std::string what, Guarantees& guarantees) const;
};

// The step makes another claim of it: its reason takes the place of those below, which were of the claim before. (A
// step that leaves the claim as it is and has something to say of it adds to `because`.)
template <class Level>
void reshape(Claim<Level>& claim, const Shaping& by, Level level, std::string text, std::string why) {
  claim.level = level;
  claim.text = std::move(text);
  claim.because = {{std::string(by.step), std::move(why)}};
}

}  // namespace prism
