// From librdkafka's errors to Prism's.
#pragma once

#include <librdkafka/rdkafka.h>

#include <string_view>

#include "backends/client/errors.h"
#include "base/error.h"

namespace prism::kafka {

// `detail`: what librdkafka says beside the code; may be empty. `retry`: of errors that say nothing about the outcome.
Error error_of(const client::Peer& peer, rd_kafka_resp_err_t code, std::string_view detail = {},
               Retry retry = Retry::safe);
Error topic_not_found(std::string_view topic);

// The same request may succeed in a moment, without anybody doing anything.
bool is_transient(rd_kafka_resp_err_t code) noexcept;
// The group has gone on without this member, or the partition is another's.
bool is_fenced(rd_kafka_resp_err_t code) noexcept;

}  // namespace prism::kafka
