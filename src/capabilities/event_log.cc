#include "capabilities/event_log.h"

#include <algorithm>

namespace prism {

Result<void> check_topic_name(std::string_view name) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (!name.empty() && name.size() <= kMaxTopicBytes && std::none_of(name.begin(), name.end(), control)) return {};
  return fail(Code::invalid_argument, "INVALID_TOPIC",
              name.size() > kMaxTopicBytes ? "the name of the topic has " + std::to_string(name.size()) + " bytes"
                                           : std::string("the name of the topic is empty or has control characters"),
              "name a topic with 1 to " + std::to_string(kMaxTopicBytes) + " bytes, its prefix included");
}

}  // namespace prism
