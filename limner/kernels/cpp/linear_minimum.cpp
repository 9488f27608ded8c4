// The products of formats with a minimum.
#include "product.h"

namespace limner {

AppendProduct product_with_minimum(bool super) {
  return super ? append_quantised_product<FourBitsSuper> : append_quantised_product<FourBitsMinimum>;
}

}  // namespace limner
