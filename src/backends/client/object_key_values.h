// KeyValueStore on an ObjectStore: an object for each key, whose content is a short header and the value.
//
// A version is the time of the write in microseconds, or one more than the version before where that is not less; of a
// deleted key the header stays behind for an hour, so that versions grow and are never used again as long as clocks
// differ by less (S3 refuses more than 15 minutes). Every write is conditional on the state that it was decided on.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "capabilities/key_value_store.h"
#include "capabilities/object_store.h"

namespace prism::client {

struct ObjectKeyValues {
  std::shared_ptr<ObjectStore> objects;
  std::string prefix = "prism-kv/";  // at most 84 bytes, with '/' at its end; nothing else is kept below it
  // Removes the object if it still has this etag; null, or false: the store cannot do that, and what was deleted leaves
  // its header behind for good.
  std::function<Task<bool>(Context, std::string key, std::string etag)> remove_if = nullptr;
};

// The durability is that of the objects. Beside the reasons of the interface those of the store; from every call
// CONDITIONAL_WRITES_MISSING where it ignores the conditions of a put.
std::shared_ptr<KeyValueStore> make_object_key_values(ObjectKeyValues options);

}  // namespace prism::client
