// Reader: reads partitions of a topic without a group.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "backends/kafka/connection.h"
#include "backends/kafka/topic.h"
#include "runtime/loop.h"

namespace prism::kafka {

// From these offsets on, by partition. Blocks for a moment.
Result<std::unique_ptr<LogReader>> open_reader(std::shared_ptr<Connection> connection, EventLoop& loop, TopicPtr topic,
                                               std::vector<std::pair<std::uint32_t, std::uint64_t>> from);

}  // namespace prism::kafka
