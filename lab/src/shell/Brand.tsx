import classes from "./Brand.module.css";
import icon from "./icon.svg";

export function Brand() {
  return (
    <span className={classes.brand}>
      <img src={icon} alt="" width={28} height={28} />
      limner
    </span>
  );
}
